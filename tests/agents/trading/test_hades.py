from datetime import timedelta
from pathlib import Path

import pytest

from agents.trading.hades import Hades, HadesConfig, Screening
from agents.trading.name_index import ListedName
from agents.trading.sanctions import FictitiousLists, ListFile, ListFormat, SanctionsFiles, fictitious_files
from core.clock import FixedClock
from core.errors import ConfigurationError
from core.types import BindingConstraint, Severity, Stage
from tests.agents.trading.signals import NOW, Lists, company, person, signal

LISTED = (
    person("Tikhomir Lazarevich Zervanov", entry="P1"),
    company("Zoryanka Maritime Trading LLC", entry="C1"),
    company("Coal", entry="C2"),
)


def screen(
    *names: ListedName, config: HadesConfig | None = None, age: timedelta = timedelta(0), **changes: object
) -> Screening:
    lists = Lists(names or LISTED, NOW - age)
    return Hades(lists, config or HadesConfig(), FixedClock(NOW)).screen(signal(**changes))


def constraint_of(screening: Screening) -> BindingConstraint | None:
    if screening.refusal is None:
        return None
    assert screening.refusal.stage is Stage.HADES
    return screening.refusal.constraint


def test_a_clean_signal_scores_one_and_keeps_its_severity() -> None:
    screening = screen(supplier="Intel Corporation")
    assert screening.refusal is None
    assert screening.filtered.compliance_score == 1.0
    assert screening.filtered.severity is Severity.HIGH
    assert not screening.filtered.esg_flag and not screening.filtered.ofac_flag and not screening.filtered.downgraded
    assert screening.filtered.notes == ()
    assert (screening.list_version, screening.matched_entry) == ("test", None)


def test_a_supplier_on_a_list_kills() -> None:
    screening = screen(supplier="ООО «Зорянка» Maritime Trading")
    assert constraint_of(screening) is BindingConstraint.SANCTIONS
    assert screening.filtered.ofac_flag
    assert screening.filtered.compliance_score == 0.0
    assert screening.matched_entry == "C1 Zoryanka Maritime Trading LLC"
    assert screening.refusal is not None
    assert "1.000" in screening.refusal.reason


def test_a_name_in_the_headline_kills_and_so_does_one_in_the_summary() -> None:
    for field in ("headline", "summary"):
        screening = screen(**{field: "A stake was sold to Tikhomir Lazarevich Zervanov on Monday"})
        assert constraint_of(screening) is BindingConstraint.SANCTIONS


def test_the_company_behind_a_ticker_is_screened() -> None:
    hades = Hades(Lists(LISTED), HadesConfig(), FixedClock(NOW), {"AAA": ("Zoryanka Maritime Trading",)}.__getitem__)
    assert constraint_of(hades.screen(signal())) is BindingConstraint.SANCTIONS


def test_a_near_match_is_downgraded_for_review() -> None:
    screening = screen(supplier="Tikhomir B. Zervanov")
    assert screening.refusal is None
    assert screening.filtered.downgraded
    assert not screening.filtered.ofac_flag
    assert screening.filtered.compliance_score == 0.7
    assert screening.filtered.severity is Severity.MEDIUM
    assert screening.filtered.original.severity is Severity.HIGH
    assert screening.matched_entry == "P1 Tikhomir Lazarevich Zervanov"
    assert "0.930" in screening.filtered.notes[0]


def test_a_listed_person_without_the_middle_name_is_refused() -> None:
    for there in ({"supplier": "Tikhomir Zervanov"}, {"headline": "Regulator names Tikhomir Zervanov as a client"}):
        assert constraint_of(screen(**there)) is BindingConstraint.SANCTIONS


def test_both_thresholds_belong_to_the_stricter_side() -> None:
    # With another initial for the middle name the similarity is 0.93.
    for kill, review, expected in ((0.93, 0.85, "killed"), (0.931, 0.93, "downgraded"), (0.99, 0.931, "clean")):
        screening = screen(supplier="Tikhomir B. Zervanov", config=HadesConfig(kill_score=kill, review_score=review))
        found = "killed" if screening.refusal else "downgraded" if screening.filtered.downgraded else "clean"
        assert found == expected


@pytest.mark.parametrize(
    "text", ["Charcoal makers form a coalition", "Delta Air Lines buys fuel", "A namesake, Zoryanka Bakery"]
)
def test_look_alikes_pass(text: str) -> None:
    screening = screen(headline=text, supplier=text.split(",")[-1])
    assert screening.refusal is None
    assert screening.filtered.compliance_score == 1.0


@pytest.mark.parametrize(
    ("text", "flagged"),
    [
        ("Miner sells its coal business", True),
        ("Miner sells its Coal, oil stays", True),
        ("Grill maker sells charcoal", False),
        ("Parties form a coalition", False),
        ("Company settles money laundering case", True),
        ("Laundering of money is not what it does", False),
        ("Oil spill closes a port", True),
        ("Weaponised software was found", False),
    ],
)
def test_esg_terms_are_whole_words(text: str, flagged: bool) -> None:
    screening = screen(person("Nobody Else"), headline=text)
    assert screening.refusal is None
    assert screening.filtered.esg_flag is flagged
    assert screening.filtered.compliance_score == (0.4 if flagged else 1.0)
    assert screening.filtered.severity is (Severity.MEDIUM if flagged else Severity.HIGH)


@pytest.mark.parametrize(("read", "effective"), [("critical", "high"), ("medium", "low"), ("low", "low")])
def test_an_esg_flag_lowers_the_severity_by_one_level(read: str, effective: str) -> None:
    screening = screen(person("Nobody Else"), headline="Coal is sold", severity=Severity(read))
    assert screening.filtered.severity is Severity(effective)


def test_what_is_flagged_and_near_a_listed_name_has_the_lower_score_and_loses_one_level() -> None:
    screening = screen(supplier="Tikhomir B. Zervanov", summary="There were bribes.")
    assert screening.filtered.esg_flag and screening.filtered.downgraded
    assert screening.filtered.compliance_score == 0.4
    assert screening.filtered.severity is Severity.MEDIUM


@pytest.mark.parametrize(
    ("text", "blocked"), [("Firm makes cluster munitions", True), ("Firm makes munitions in a cluster", False)]
)
def test_excluded_terms_block(text: str, blocked: bool) -> None:
    screening = screen(summary=text)
    assert constraint_of(screening) is (BindingConstraint.ESG_BLOCK if blocked else None)
    assert screening.filtered.esg_flag is blocked
    assert (screening.filtered.compliance_score == 0.0) is blocked


def test_sanctions_bind_before_esg() -> None:
    screening = screen(supplier="Zoryanka Maritime Trading", summary="Firm makes cluster munitions")
    assert constraint_of(screening) is BindingConstraint.SANCTIONS


@pytest.mark.parametrize(
    ("age", "usable"),
    [
        (timedelta(days=14), True),
        (timedelta(days=14, seconds=1), False),
        (timedelta(days=-1), True),
        (timedelta(days=-1, seconds=-1), False),
    ],
)
def test_a_list_that_is_too_old_or_not_yet_published_refuses_everything(age: timedelta, usable: bool) -> None:
    screening = screen(age=age)
    assert constraint_of(screening) is (None if usable else BindingConstraint.SANCTIONS_LIST_MISSING)
    assert (screening.list_version is None) is not usable
    assert screening.filtered.compliance_score == (1.0 if usable else 0.0)


def test_one_old_list_among_new_ones_refuses_everything() -> None:
    files = SanctionsFiles(
        [
            ListFile(format=item.format, path=item.path, dated=NOW - timedelta(days=15 if item.format is ListFormat.UN else 0))
            for item in fictitious_files()
        ]
    )
    screening = Hades(files, HadesConfig(), FixedClock(NOW)).screen(signal())
    assert constraint_of(screening) is BindingConstraint.SANCTIONS_LIST_MISSING


def test_a_missing_list_refuses_everything(tmp_path: Path) -> None:
    files = SanctionsFiles([ListFile(format=ListFormat.UN, path=tmp_path / "nowhere.xml")])
    screening = Hades(files, HadesConfig(), FixedClock(NOW)).screen(signal())
    assert constraint_of(screening) is BindingConstraint.SANCTIONS_LIST_MISSING
    assert screening.refusal is not None
    assert "nowhere.xml" in screening.refusal.reason


def test_after_a_restart_the_lists_are_read_at_once_though_no_file_changed() -> None:
    files, clock = SanctionsFiles(fictitious_files(NOW)), FixedClock(NOW)
    before = files.load()
    assert files.load() is before
    Hades(files, HadesConfig(), clock).restart()
    assert files.load() is not before
    made_up = FictitiousLists(clock)
    index = made_up.load().index
    assert made_up.load().index is index
    Hades(made_up, HadesConfig(), clock).restart()
    assert made_up.load().index is not index


def test_the_made_up_lists_screen_at_any_time() -> None:
    clock = FixedClock(NOW)
    hades = Hades(FictitiousLists(clock), HadesConfig(), clock)
    assert hades.screen(signal()).refusal is None
    clock.advance(timedelta(days=1000))
    assert constraint_of(hades.screen(signal(supplier="Qorvexim Industrial Group"))) is BindingConstraint.SANCTIONS


@pytest.mark.parametrize(
    "changes",
    [
        {"kill_score": 0.8},
        {"kill_score": 1.1},
        {"review_score": 0.0},
        {"esg_compliance": 1.5},
        {"max_list_age": timedelta(0)},
        {"esg_terms": ("...",)},
    ],
)
def test_a_config_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        HadesConfig(**changes)  # type: ignore[arg-type]
