from uuid import UUID

import pytest

from aqf import catalogue
from aqf.catalogue import NOT_TRIED, check_family, find_feature, list_entries
from core.errors import ExpressionError, LookAheadError, MissingDataError
from core.store.records import Feature
from features.alphas import LIBRARY, Hypothesis
from features.expression import parse


def registered(name: str, expression: str, *, version: int = 1, status: str = "promoted") -> Feature:
    try:
        sha256 = parse(expression).sha256
    except ExpressionError:
        sha256 = "0" * 64
    return Feature(
        feature_id=UUID(int=version),
        name=name,
        version=version,
        expression=expression,
        expression_sha256=sha256,
        lookback=1,
        family="found",
        hypothesis="A search found it.",
        status=status,
        reason="holdout",
    )


def test_every_known_hypothesis_is_listed_and_found_by_its_name() -> None:
    entries = list_entries()
    assert [entry.name for entry in entries] == [hypothesis.name for hypothesis in LIBRARY]
    assert {entry.status for entry in entries} == {NOT_TRIED}
    for entry in entries[::20]:
        found = find_feature(f" {entry.name} ")
        assert found.entry == entry
        assert found.title == entry.name
        assert found.expression == parse(entry.expression)


def test_a_hypothesis_that_was_tried_carries_its_verdict_whatever_it_was_called() -> None:
    rows = [registered("another_name", "-pct_change(close, 5)", status="rejected")]
    (entry,) = [entry for entry in list_entries(rows) if entry.name == "reversal_5"]
    assert (entry.status, entry.reason) == ("rejected", "holdout")
    assert "another_name" not in [entry.name for entry in list_entries(rows)]
    found = find_feature("another_name", rows).entry
    assert found is not None and found.source == "registry"


def test_the_registry_comes_before_the_library_and_its_newest_version_first() -> None:
    rows = [registered("reversal_5", "-ts_sum(returns, 4)"), registered("reversal_5", "-ts_sum(returns, 6)", version=2)]
    assert find_feature("reversal_5", rows).expression == parse("-ts_sum(returns, 6)")


def test_a_formula_is_recognised_when_it_is_known() -> None:
    found = find_feature("-(close / delay(close, 5) - 1)")
    assert found.title == "reversal_5"
    unknown = find_feature("-ts_sum(returns, 17)")
    assert unknown.entry is None
    assert unknown.title == "-ts_sum(returns, 17)"


def test_an_expression_may_build_on_features_of_both() -> None:
    rows = [registered("mine", "ts_mean(returns, 7)")]
    found = find_feature("rank(mine) - rank(reversal_5)", rows)
    assert found.expression == parse("rank(ts_mean(returns, 7)) - rank(-pct_change(close, 5))")


def test_a_feature_called_like_a_field_never_shadows_it() -> None:
    rows = [registered("close", "open * 2"), registered("two words", "open * 3")]
    assert find_feature("rank(close)", rows).expression == parse("rank(close)")
    assert find_feature("two words", rows).expression == parse("open * 3")


def test_what_this_version_cannot_parse_is_listed_but_not_run() -> None:
    rows = [registered("old", "no_such_operator(close)"), registered("old_too", "2 +")]
    entries = list_entries(rows)[-1:]
    assert (entries[0].sha256, entries[0].needs) == (None, frozenset())
    with pytest.raises(ExpressionError, match="unknown operator"):
        find_feature("old", rows)


def test_a_misspelt_name_is_answered_with_the_nearest_and_not_with_all() -> None:
    with pytest.raises(ExpressionError, match=r"did you mean reversal_5\?") as caught:
        find_feature("reversal_55")
    assert len(str(caught.value)) < 300
    with pytest.raises(ExpressionError, match=r"did you mean mine\?"):
        find_feature("rank(mines)", [registered("mine", "close / open")])
    with pytest.raises(LookAheadError):
        find_feature("delay(close, -1) / close")


def test_an_unknown_family_is_answered_with_the_nearest() -> None:
    check_family("momentum", list_entries())
    with pytest.raises(MissingDataError, match=r"unknown family 'momentun'. Did you mean momentum\? There are .*reversal"):
        check_family("momentun", list_entries())


def test_another_catalogue_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    more = Hypothesis(
        name="KMID",
        family="alpha158",
        expression="(close - open) / open",
        hypothesis="The body of the candle.",
        source="qlib",
        needs=frozenset({"open", "close"}),
    )
    monkeypatch.setattr(catalogue, "CATALOGUES", (*catalogue.CATALOGUES, lambda: (more,)))
    assert find_feature("KMID").title == "KMID"
    assert list_entries()[-1].family == "alpha158"
