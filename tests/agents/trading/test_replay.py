"""Recorded rows on both sides of every boundary that a row can reach, and what a changed default does to them."""

import csv
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.trading.context import TradingConfig
from agents.trading.milestones import MilestonesConfig, StageRules
from agents.trading.replay import Judged, ReplayRules, confusion, replay
from agents.trading.replay_rows import COLUMNS, ReplayRow, parse_replay, read_replay
from agents.trading.sanctions import SanctionsFiles, fictitious_files
from agents.trading.sizing import FixedSizing, KellySizing
from core.errors import DataError, MissingDataError
from core.store.rehearsal import Rehearsal, RehearsalGateway
from core.types import BindingConstraint, PipelineStatus, Stage
from tests.conftest import Server

FOLDER = Path(__file__).resolve().parents[2] / "replay"
FILES = sorted(path.stem for path in FOLDER.glob("*.csv"))
LISTS_OF = datetime(2024, 3, 1, 12, tzinfo=UTC)

# What a single row on an empty paper account in rule mode cannot reach.
NEEDS_A_BOOK = {
    BindingConstraint.COOLDOWN,
    BindingConstraint.TICKER_CAP,
    BindingConstraint.SECTOR_CAP,
    BindingConstraint.BUDGET,
    BindingConstraint.HALTED,
    BindingConstraint.BROKER_UNAVAILABLE,
    BindingConstraint.MUTED_PATTERN,
}
NEEDS_A_MODEL = {BindingConstraint.LLM_UNAVAILABLE, BindingConstraint.LLM_REJECTED, BindingConstraint.REASONING_QUALITY}


@pytest.fixture(scope="module")
def rehearsal(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    conninfo = server.create(server.template)
    gateway = RehearsalGateway(conninfo)
    gateway.open()
    yield Rehearsal(gateway, tmp_path_factory.mktemp("rehearsal"))
    gateway.close()
    server.drop(conninfo)


def rules_of(file: str, config: TradingConfig | None = None) -> ReplayRules:
    """Return the rules of a file: those of the desk, and for one of them lists that have a date."""
    config = config or TradingConfig()
    if file == "dated_lists":
        return ReplayRules(trading=config, lists=lambda clock: SanctionsFiles(fictitious_files(LISTS_OF)))
    return ReplayRules(trading=config)


@pytest.fixture(scope="module")
def judged(rehearsal: Rehearsal) -> dict[tuple[str, str], Judged]:
    """Every row by its file and its name, as the desk's own rules judge it."""
    found = {}
    for file in FILES:
        for one in replay(read_replay(FOLDER / f"{file}.csv"), rehearsal, rules_of(file)):
            found[file, one.row.signal["signal_id"]] = one
    return found


def test_every_row_ends_as_expected(judged: dict[tuple[str, str], Judged]) -> None:
    differing = {name: (one.stage, one.constraint, one.trace.kill_reason) for name, one in judged.items() if not one.matches}
    assert differing == {}
    assert all(pair[0] == pair[1] for pair in confusion(judged.values()))


def test_every_constraint_that_a_row_can_reach_is_reached_and_passed_by(judged: dict[tuple[str, str], Judged]) -> None:
    reached = {one.constraint for one in judged.values()} - {None}
    assert reached == set(BindingConstraint) - NEEDS_A_BOOK - NEEDS_A_MODEL
    for file in FILES:
        ends = [one.stage for name, one in judged.items() if name[0] == file]
        assert ends.count("filled") >= 2, f"{file} must have rows that pass"
        assert len(ends) - ends.count("filled") >= 2, f"{file} must have rows that are refused"


def test_a_filled_row_is_sized_by_hand(judged: dict[tuple[str, str], Judged]) -> None:
    one = judged["sizes", "a context without a record is explored"]
    assert (one.trace.confidence, one.trace.position_pct, one.trace.status) == (0.62, 0.01, PipelineStatus.FILLED)
    order = one.order
    assert order is not None
    # 1 % of 50,000 at 100 a share, a stop 3 % below and a target 6 % above, for two hours.
    assert (order.qty, order.limit_price, order.stop_loss_price, order.take_profit_price) == (5.0, 100.0, 97.0, 106.0)
    assert order.expires_at == one.row.now + timedelta(minutes=120)
    # Sixteen hits of twenty: (16 + 10 * 0.5) / 30.
    assert judged["sizes", "a seed account and a record of tier 1"].trace.confidence == pytest.approx(0.7)
    # No hit of ten is a measured rate: (0 + 5) / 20.
    assert "0.250" in (judged["sizes", "a record without a single hit"].trace.kill_reason or "")


@pytest.mark.parametrize(
    ("row", "size", "qty", "noted"),
    [
        ("a supplier that is nearly listed, for review", 0.007, 3.0, "size 0.70%; lowered to 70% by its compliance"),
        ("a flagged term lowers the severity and passes", 0.004, 2.0, "size 0.40%; lowered to 40% by its compliance"),
        ("a word that contains a flagged one", 0.01, 5.0, "size 1.00%"),
    ],
)
def test_what_is_for_review_or_flagged_is_staked_less(
    judged: dict[tuple[str, str], Judged], row: str, size: float, qty: float, noted: str
) -> None:
    one = judged["compliance", row]
    assert one.order is not None
    assert one.trace.position_pct == pytest.approx(size)
    assert one.order.qty == qty
    assert noted in [outcome.note for outcome in one.trace.stages]


def test_what_a_review_is_about_stands_in_the_trace(judged: dict[tuple[str, str], Judged]) -> None:
    stages = judged["compliance", "a supplier that is nearly listed, for review"].trace.stages
    note = next(outcome.note for outcome in stages if outcome.stage is Stage.HADES)
    assert note.startswith("compliance 0.7; 'Zoryanka Maritime' is 0.")
    assert "near to OFAC" in note


def test_a_symbol_of_an_unknown_sector_is_told_to_be_one(judged: dict[tuple[str, str], Judged]) -> None:
    for row, is_told in (("a small company that the row has a price of", True), ("a company without its ticker", False)):
        notes = " ".join(outcome.note for outcome in judged["universe", row].trace.stages)
        assert ("its sector is not known" in notes) is is_told


def test_a_company_without_its_ticker_is_found_by_its_name(judged: dict[tuple[str, str], Judged]) -> None:
    assert judged["universe", "a company without its ticker"].trace.symbol == "AAPL"
    assert judged["universe", "a company by another name"].trace.symbol == "META"
    assert judged["universe", "behind what has no ticker's shape one that has"].trace.symbol == "AAPL"


def test_a_row_is_judged_the_same_alone_and_among_others(rehearsal: Rehearsal, judged: dict[tuple[str, str], Judged]) -> None:
    for name in ("two trades without a hit are at the floor's edge", "a context without a record is explored"):
        before = judged["sizes", name]
        (again,) = replay([before.row], rehearsal)
        assert fingerprint(again) == fingerprint(before)


def test_nothing_of_a_replay_stays(rehearsal: Rehearsal, judged: dict[tuple[str, str], Judged]) -> None:
    tables = ("signals", "decision_traces", "trades", "order_intents", "paper_orders", "equity_snapshots", "macro_context")
    with rehearsal.undone() as store:
        assert {name: store.trading.gateway.select(name) for name in tables} == {name: [] for name in tables}


def test_a_price_between_two_cents_buys_by_itself_and_is_met_at_itself(judged: dict[tuple[str, str], Judged]) -> None:
    order = judged["sizes", "a price between two cents"].order
    assert order is not None
    # 500 at 187.4534 is 2.67 shares; a limit of 187.45 would be below the last price.
    assert (order.qty, order.limit_price, order.stop_loss_price, order.take_profit_price) == (2.0, 187.46, 181.83, 198.7)
    narrow = judged["sizes", "the stake is the price to a hundredth of a cent"]
    assert narrow.order is not None
    assert (narrow.order.qty, narrow.order.limit_price) == (1.0, 10.0)


def test_the_trades_of_other_contexts_end_exploration_and_are_no_record(judged: dict[tuple[str, str], Judged]) -> None:
    explored, cold = (
        judged["sizes", f"{n} trades of other contexts {rest}"]
        for n, rest in (("nineteen", "leave a seed account to explore"), ("twenty", "where two tiers are admitted"))
    )
    assert (explored.trace.confidence, cold.trace.confidence) == (0.72, 0.55)


def test_all_that_cut_a_size_may_be_expected_and_the_trace_names_the_first(judged: dict[tuple[str, str], Judged]) -> None:
    seed = judged["sizes", "a seed account is cut by its trainees as much as by its stage"]
    assert seed.constraint is BindingConstraint.GLOBAL_CAP
    assert seed.to_dict()["binding"] == ["global_cap", "seniority_cap"]
    assert judged["sizes", "an empire is cut by its trainees"].binding == (BindingConstraint.SENIORITY_CAP,)
    assert judged["sizes", "a record below the floor"].binding == (BindingConstraint.CONFIDENCE_BELOW_FLOOR,)
    other = dataclasses.replace(seed.row, expected_constraint=BindingConstraint.BUDGET)
    assert not dataclasses.replace(seed, row=other).matches


# A changed default shows


def fingerprint(one: Judged) -> tuple[Any, ...]:
    """Return all of a verdict but its identities and how long it took."""
    stages = tuple((outcome.stage, outcome.passed, outcome.note) for outcome in one.trace.stages)
    trace = one.trace
    order = None if one.order is None else {**one.order.to_dict(), "client_order_id": ""}
    return one.stage, one.constraint, trace.kill_reason, trace.confidence, trace.position_pct, stages, order


def without(terms: tuple[str, ...], gone: str) -> tuple[str, ...]:
    return tuple(term for term in terms if term != gone)


DEFAULTS = TradingConfig()
PLAIN = ("signals", "an ordinary signal")
BULL = ("market", "hardly no bull market")
EXPLORED = ("sizes", "a context without a record is explored")
CHANGES: dict[str, tuple[Any, tuple[str, str]]] = {
    "icarus.max_age": (timedelta(hours=167), ("signals", "published 168 hours ago")),
    "icarus.routine_filings": (("10-K",), ("signals", "a routine filing")),
    "icarus.universe": (frozenset({"MSFT"}), ("signals", "two tickers, of which the first is judged")),
    "icarus.private_companies": ((), ("signals", "no ticker and a company without shares")),
    "hades.kill_score": (0.999, ("compliance", "a listed supplier with a letter amiss")),
    "hades.review_score": (0.94, ("compliance", "a supplier that is nearly listed, for review")),
    "hades.max_list_age": (timedelta(days=13), ("dated_lists", "lists of fourteen days ago")),
    "hades.esg_compliance": (0.5, ("compliance", "a flagged term lowers the severity and passes")),
    "hades.review_compliance": (0.8, ("compliance", "a supplier that is nearly listed, for review")),
    "hades.esg_terms": (
        without(DEFAULTS.hades.esg_terms, "coal"),
        ("compliance", "a flagged term lowers the severity and passes"),
    ),
    "hades.esg_blocked_terms": (without(DEFAULTS.hades.esg_blocked_terms, "forced labor"), ("compliance", "an excluded term")),
    "artemis.extreme_vix": (34.9, ("market", "a VIX just below 35")),
    "artemis.nervous_vix": (24.9, ("market", "a bear market and a VIX of 25")),
    "artemis.bull_return": (0.0199, BULL),
    "artemis.bear_return": (-0.0299, ("market", "hardly no bear market and a VIX above 25")),
    "artemis.month_bars": (70, PLAIN),
    "pythia.gate.prior_trades": (9.0, ("sizes", "a record at the floor")),
    "pythia.gate.prior_hit_rate": (0.49, ("sizes", "a record at the floor")),
    "pythia.gate.trusted_from": (11, ("sizes", "a record below the floor")),
    "pythia.floor": (0.4501, ("sizes", "a record at the floor")),
    "pythia.tier_1_from": (0.701, ("sizes", "a seed account and a record of tier 1")),
    "pythia.tier_2_from": (0.57, ("sizes", "a record of tier 2 at its lower end")),
    "pythia.cold_confidence": (0.71, ("sizes", "twenty trades of other contexts end what a seed account explores")),
    "pythia.cold_size": (0.021, EXPLORED),
    "pythia.exploration_confidence": (0.63, EXPLORED),
    "pythia.exploration_confidence_tier_1": (0.73, ("sizes", "a seed account explores as tier 1")),
    "pythia.exploration_trades": (0, EXPLORED),
    "limits.max_deployed": (0.009, PLAIN),
    "limits.max_per_sector": (0, PLAIN),
    "limits.seniority.paper_caps": ((0.011, 0.02, 0.03, 0.03), PLAIN),
    "milestones.stages": (
        tuple(
            dataclasses.replace(stage, from_equity=1_001.0) if stage.from_equity == 1_000.0 else stage
            for stage in MilestonesConfig().stages
        ),
        ("sizes", "a sprint account is cut by its trainees and not by its stage"),
    ),
    "ares.stop_loss": (0.031, PLAIN),
    "ares.take_profit_multiple": (2.1, PLAIN),
    "ares.expiry_minutes": (121.0, PLAIN),
    "ares.currency": ("EUR", PLAIN),
}
"""A changed value of each default, and a row that shows it."""

NOT_IN_A_ROW = {
    "of a book that is not empty": ("limits.cooldown_hours", "milestones.vault_share"),
    "of outcomes": (
        *(f"experience.{item.name}" for item in dataclasses.fields(DEFAULTS.experience)),
        "limits.seniority.agents",
        "limits.seniority.wins_per_level",
        "limits.seniority.clearances",
    ),
    "of decisions before": ("icarus.mute_days", "icarus.mute_min_seen", "icarus.mute_min_days", "icarus.mute_rejected"),
    "of time, or of how often something is asked": (
        "icarus.batch",
        "icarus.map_age",
        "artemis.max_age",
        "artemis.cache",
        "ares.max_quote_age_hours",
        "argus.max_price_age_hours",
        "reconciler.overlap_seconds",
        "pipeline.batch",
        "pipeline.tick_seconds",
        "pipeline.cash_tolerance",
        "pipeline.guard_seconds",
        *(f"breaker.{item.name}" for item in dataclasses.fields(DEFAULTS.breaker)),
    ),
    "of a model": (
        *(f"zeus.{item.name}" for item in dataclasses.fields(DEFAULTS.zeus)),
        *(f"chat.{item.name}" for item in dataclasses.fields(DEFAULTS.chat)),
    ),
    "of a ticker map": ("icarus.min_name_score",),
    "of bars of the ticker": ("ares.atr_multiple", "ares.atr_bars", "ares.min_stop", "ares.max_stop"),
    "of real money": ("limits.seniority.real_cap",),
    "of an account, which must be kept in it": ("argus.currency",),
}
"""Defaults that no row on an empty account can show, by what it lacks; other tests hold them."""


def list_defaults(config: Any, prefix: str = "") -> Iterator[str]:
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, StageRules):
            yield from list_defaults(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def change(config: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: change(getattr(config, name), rest, value) if rest else value})


def test_every_default_is_either_shown_by_a_row_or_known_not_to_be() -> None:
    hidden = [name for names in NOT_IN_A_ROW.values() for name in names]
    assert len(hidden) == len(set(hidden))
    assert sorted([*CHANGES, *hidden]) == sorted(list_defaults(DEFAULTS))


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_default_shows_up_as_a_difference(
    name: str, rehearsal: Rehearsal, judged: dict[tuple[str, str], Judged]
) -> None:
    value, row = CHANGES[name]
    (after,) = replay([judged[row].row], rehearsal, rules_of(row[0], change(DEFAULTS, name, value)))
    assert fingerprint(after) != fingerprint(judged[row])


def test_another_sizing_shows_up_as_a_difference(rehearsal: Rehearsal, judged: dict[tuple[str, str], Judged]) -> None:
    before = judged["sizes", "a record of nothing but hits"]
    (fixed,) = replay([before.row], rehearsal, ReplayRules(sizing=FixedSizing(fraction=0.005)))
    assert (fixed.constraint, fixed.trace.position_pct) == (None, 0.005)
    low = judged["sizes", "a record at the floor"]
    (kelly,) = replay([low.row], rehearsal, ReplayRules(sizing=KellySizing()))
    assert (kelly.stage, kelly.constraint) == ("pythia", BindingConstraint.CONFIDENCE_BELOW_FLOOR)


# Files that cannot be read


def cells(**changes: str) -> dict[str, str]:
    with (FOLDER / "signals.csv").open(encoding="utf-8", newline="") as file:
        return {**next(csv.DictReader(file)), **changes}


def write(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"now": "2024-03-04T15:30:00"}, "`now` must be a time with its offset"),
        ({"now": "today"}, "`now` must be a time with its offset"),
        ({"vix": "high"}, "`vix` must be a number or empty"),
        ({"now": "0001-01-01T00:00:00+05:00"}, "of the years 1900 to 2200"),
        ({"equity": "plenty"}, "`equity` must be a number or empty"),
        ({"hit_rate": "1.2", "closed_trades": "5"}, "`ReplayRow.hit_rate`"),
        ({"hit_rate": "inf", "closed_trades": "5"}, "`ReplayRow.hit_rate`"),
        ({"closed_trades": "many"}, "`closed_trades` must be a number or empty"),
        ({"closed_trades": "inf"}, "`closed_trades` must be a whole number"),
        ({"closed_trades": "2.5"}, "`closed_trades` must be a whole number"),
        ({"closed_trades": "-1"}, "`ReplayRow.closed_trades`"),
        ({"closed_trades": "1000000"}, "at most 10000"),
        ({"expected_stage": "nowhere"}, "a stage or `filled`"),
        ({"expected_constraint": "mood"}, "`expected_constraint` must be empty or one of"),
    ],
)
def test_a_world_that_cannot_be_costs_its_own_row_alone(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", cells(), cells(signal_id="second", **changes), cells(signal_id="third"))
    found = parse_replay(path)
    assert [row.signal["signal_id"] for row in found.rows] == ["an ordinary signal", "third"]
    (unread,) = found.unread
    assert (unread.line, unread.signal_id) == (3, "second")
    assert said in unread.problem
    assert "\n" not in unread.problem
    with pytest.raises(DataError, match="line 3") as refused:
        read_replay(path)
    assert said in str(refused.value)


EMPTY = ("", " ", "nan", "NaN", "None", "null", "<NA>", "N/A", "-")


@pytest.mark.parametrize("nothing", EMPTY)
def test_whatever_tables_write_for_nothing_is_an_empty_cell(nothing: str, tmp_path: Path) -> None:
    names = ("vix", "sp500_1m_return", "price", "equity", "hit_rate", "closed_trades", "expected_constraint")
    path = write(tmp_path / "rows.csv", cells(**dict.fromkeys(names, nothing)))
    (row,) = read_replay(path)
    assert [getattr(row, name) for name in names] == [None, None, None, None, None, 0, None]


def test_what_is_not_finite_is_no_data(tmp_path: Path) -> None:
    names = ("vix", "sp500_1m_return", "price", "equity")
    (row,) = read_replay(write(tmp_path / "rows.csv", cells(**dict.fromkeys(names, "-inf"))))
    assert [getattr(row, name) for name in names] == [None] * 4


def test_nothing_that_a_table_writes_into_a_text_is_text_and_a_ticker_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", cells(supplier="nan", summary="None", tickers="<NA>"), cells(tickers="NA"))
    empty, named = read_replay(path)
    assert (empty.signal["supplier"], empty.signal["summary"], empty.tickers) == ("", "", ())
    assert named.tickers == ("NA",)


def test_a_file_that_pandas_wrote_is_read(tmp_path: Path) -> None:
    now = pd.to_datetime(["2024-03-04T15:30Z", "2024-03-05T16:30Z"])
    frame = pd.DataFrame([cells(), cells(signal_id="second")]).assign(
        now=now, hit_rate=[0.75, np.nan], closed_trades=[12, None], equity=[np.nan, 50_000.0], supplier=[None, "Somebody"]
    )
    frame.to_csv(tmp_path / "rows.csv")
    found = parse_replay(tmp_path / "rows.csv")
    assert [(row.now, row.hit_rate, row.closed_trades, row.equity) for row in found.rows] == [
        (now[0], 0.75, 12, None),
        (now[1], None, 0, 50_000.0),
    ]
    assert [row.signal["supplier"] for row in found.rows] == ["", "Somebody"]
    assert found.notes == ("columns that a replay does not know are ignored: (without a name)",)


def test_columns_come_in_any_order_with_others_among_them_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.csv", cells(), cells(signal_id="second", headline='AAPL, "the" maker'))
    with (tmp_path / "odd.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["mood", *reversed(COLUMNS)], quoting=csv.QUOTE_ALL, restval="good")
        writer.writeheader()
        file.write("\r\n")
        writer.writerow(cells())
        writer.writerow(dict.fromkeys(["mood", *COLUMNS], ""))
        writer.writerow(cells(signal_id="second", headline='AAPL, "the" maker'))
        file.write("\r\n , ,\r\n\r\n")
    odd = parse_replay(tmp_path / "odd.csv")
    assert [dataclasses.replace(row, line=0) for row in odd.rows] == [
        dataclasses.replace(row, line=0) for row in read_replay(plain)
    ]
    assert [row.line for row in odd.rows] == [3, 5]
    assert (odd.unread, odd.notes) == ((), ("columns that a replay does not know are ignored: mood",))


def test_a_quote_within_a_cell_is_no_harm_and_one_that_never_ends_costs_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", cells())
    line = path.read_text().splitlines()[1]
    quoted, endless = (line.replace(cells()["headline"], text) for text in ('"Apple" signs 2" pipes', '"Apple signs'))
    path.write_text(f"{path.read_text()}{quoted}\n{endless}\n{line}\n")
    found = parse_replay(path)
    assert [row.signal["headline"] for row in found.rows] == [cells()["headline"], 'Apple signs 2" pipes']
    assert ["`ReplayRow.expected_stage`" in one.problem for one in found.unread] == [True]


def test_an_end_is_read_without_regard_to_capitals_and_spaces(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", cells(expected_stage=" Filled ", expected_constraint=" SENIORITY_CAP"))
    (row,) = read_replay(path)
    assert (row.expected_stage, row.expected_constraint) == ("filled", BindingConstraint.SENIORITY_CAP)


def test_rows_may_share_an_identity_which_is_said_once(rehearsal: Rehearsal, tmp_path: Path) -> None:
    rows = (cells(), cells(price="1000"), cells(), cells(signal_id="b"), cells(signal_id="b"))
    found = parse_replay(write(tmp_path / "rows.csv", *rows))
    assert found.notes == ("several rows have the signal_id 'an ordinary signal' and 1 more; each row is judged alone",)
    assert [one.stage for one in replay(found.rows, rehearsal)] == ["filled", "ares", "filled", "filled", "filled"]


def test_a_file_that_is_no_replay_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no file"):
        read_replay(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="missing: vix"):
        read_replay(write(tmp_path / "a.csv", cells(), columns=tuple(name for name in COLUMNS if name != "vix")))
    (tmp_path / "b.csv").write_text(",".join([*COLUMNS, "vix"]) + "\n")
    with pytest.raises(DataError, match="twice: vix"):
        read_replay(tmp_path / "b.csv")
    endless = write(tmp_path / "c.csv", cells(), cells(summary="on and on " * 20_000))
    with pytest.raises(DataError, match="cannot be read as CSV after line 2"):
        read_replay(endless)
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        read_replay(tmp_path / "d.csv")
    ragged = write(tmp_path / "e.csv", cells())
    line = ragged.read_text().splitlines()[1]
    ragged.write_text(ragged.read_text() + f"one,two\n{line},more\n{line},,\n{line.rpartition(',')[0]}\n")
    found = parse_replay(ragged)
    assert [(one.line, one.problem.partition(", as")[0]) for one in found.unread] == [
        (3, "`now` must be a time with its offset"),
        (4, "it must not have more cells than there are columns; quote a cell that holds a comma."),
    ]
    assert [row.expected_constraint for row in found.rows] == [BindingConstraint.SENIORITY_CAP] * 2 + [None]
    with pytest.raises(DataError, match="cannot be read"):
        read_replay(tmp_path)
    assert read_replay(write(tmp_path / "f.csv")) == []


def test_a_row_that_differs_says_what_it_ended_at(rehearsal: Rehearsal, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", cells(), cells(signal_id="dear", price="1000"))
    fine, dear = replay(read_replay(path), rehearsal)
    assert (fine.matches, dear.matches) == (True, False)
    assert dear.to_dict()["stage"] == "ares"
    assert dear.to_dict()["binding_constraint"] == "size_below_one_share"
    assert confusion([fine, dear]) == {
        ("filled seniority_cap", "filled seniority_cap"): 1,
        ("filled seniority_cap", "ares size_below_one_share"): 1,
    }


def test_a_row_knows_how_many_of_its_trades_gained() -> None:
    values: dict[str, Any] = {
        "line": 2,
        "signal": {"tickers": " AAPL | MSFT |"},
        "now": LISTS_OF,
        "equity": 1.0,
        "expected_stage": "filled",
    }
    assert ReplayRow(**values, hit_rate=0.67, closed_trades=9).hits == 6
    assert ReplayRow(**values).tickers == ("AAPL", "MSFT")


def test_a_row_that_expects_no_constraint_is_held_to_its_stage_alone(rehearsal: Rehearsal, tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.csv",
        *(cells(signal_id=stage, expected_stage=stage, expected_constraint="") for stage in ("filled", "zeus")),
    )
    free, wrong = replay(read_replay(path), rehearsal)
    assert (free.stage, free.matches, free.constraint) == ("filled", True, BindingConstraint.SENIORITY_CAP)
    assert free.trace.status is PipelineStatus.FILLED
    assert not wrong.matches
