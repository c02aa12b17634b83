from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from aqf import catalogue
from aqf.catalogue import NOT_TRIED, check_family, find_feature, list_entries
from core.errors import ExpressionError, LookAheadError, MissingDataError
from core.store.records import Feature
from features import load_plugins
from features.alphas import ALPHA158, LIBRARY, Hypothesis
from features.computable import Computable
from features.expression import parse
from tests.packages import installed


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
    assert [entry.name for entry in entries] == [*(hypothesis.name for hypothesis in LIBRARY), *ALPHA158]
    assert {entry.status for entry in entries} == {NOT_TRIED}
    for entry in entries[::20]:
        found = find_feature(f" {entry.name} ")
        assert found.entry == entry
        assert found.title == entry.name
        assert found.feature.source == parse(entry.expression)


def test_a_hypothesis_that_was_tried_carries_its_verdict_whatever_it_was_called() -> None:
    rows = [registered("another_name", "-pct_change(close, 5)", status="rejected")]
    (entry,) = [entry for entry in list_entries(rows) if entry.name == "reversal_5"]
    assert (entry.status, entry.reason) == ("rejected", "holdout")
    assert "another_name" not in [entry.name for entry in list_entries(rows)]
    found = find_feature("another_name", rows).entry
    assert found is not None and found.source == "registry"


def test_the_registry_comes_before_the_library_and_its_newest_version_first() -> None:
    rows = [registered("reversal_5", "-ts_sum(returns, 4)"), registered("reversal_5", "-ts_sum(returns, 6)", version=2)]
    assert find_feature("reversal_5", rows).feature.source == parse("-ts_sum(returns, 6)")


def test_a_formula_is_recognised_when_it_is_known() -> None:
    found = find_feature("-(close / delay(close, 5) - 1)")
    assert found.title == "reversal_5"
    unknown = find_feature("-ts_sum(returns, 17)")
    assert unknown.entry is None
    assert unknown.title == "-ts_sum(returns, 17)"


def test_an_expression_may_build_on_features_of_both() -> None:
    rows = [registered("mine", "ts_mean(returns, 7)")]
    found = find_feature("rank(mine) - rank(reversal_5)", rows)
    assert found.feature.source == parse("rank(ts_mean(returns, 7)) - rank(-pct_change(close, 5))")
    found = find_feature("KMID + mine", rows)
    assert found.feature.source == parse("(close - open) / open + ts_mean(returns, 7)")


def test_a_feature_called_like_a_field_never_shadows_it() -> None:
    rows = [registered("close", "open * 2"), registered("two words", "open * 3")]
    assert find_feature("rank(close)", rows).feature.source == parse("rank(close)")
    assert find_feature("two words", rows).feature.source == parse("open * 3")


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
        name="BODY",
        family="candles",
        expression="(close - open) / close",
        hypothesis="The body of the candle.",
        source="a book",
        needs=frozenset({"open", "close"}),
    )
    monkeypatch.setattr(catalogue, "CATALOGUES", (*catalogue.CATALOGUES, lambda: (more,)))
    assert find_feature("BODY").title == "BODY"
    assert list_entries()[-1].family == "candles"


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    with installed(tmp_path) as file:
        yield file


def of_plugin(plugin: str, **changes: Any) -> Feature:
    made = Computable.of(load_plugins()[plugin])
    row = registered("in_registry", "close", status="rejected")
    return replace(row, kind="plugin", expression=made.canonical, expression_sha256=made.sha256, **changes)


def test_a_plugin_is_named_last_and_carries_its_verdict(package: Path) -> None:
    found = find_feature("dip_in_python")
    assert found.entry is not None
    assert (found.title, found.entry.kind, found.entry.family, found.entry.status) == (
        "dip_in_python",
        "plugin",
        "plugin",
        NOT_TRIED,
    )
    assert found.entry.needs == {"close"}
    row = of_plugin("dip_in_python")
    for text in ("dip_in_python", "plugin:dip_in_python"):
        entry = find_feature(text, [row]).entry
        assert entry is not None and (entry.status, entry.family, entry.name) == ("rejected", "found", "dip_in_python")
    assert find_feature("in_registry", [row]).feature == found.feature
    entries = list_entries([row], load_plugins())
    assert [entry.name for entry in entries if entry.kind == "plugin"] == list(load_plugins())
    assert "in_registry" not in [entry.name for entry in entries]


def test_an_expression_cannot_build_on_a_plugin_and_a_misspelt_one_is_suggested(package: Path) -> None:
    with pytest.raises(ExpressionError, match=r"`dip_in_python` is a plugin feature, which no expression can build on"):
        find_feature("rank(dip_in_python)")
    with pytest.raises(ExpressionError, match=r"there is no feature `dip_python`. Did you mean the plugin dip_in_python\?"):
        find_feature("dip_python")
    with pytest.raises(ExpressionError, match=r"unknown field `reversal_55` .*did you mean reversal_5\?"):
        find_feature("reversal_55")


def test_code_that_changed_is_computed_under_its_own_name_and_not_under_that_of_the_registry(package: Path) -> None:
    rows = [of_plugin("dip_in_python"), of_plugin("dip_in_python", name="dip_in_python")]
    package.write_text(package.read_text() + "# a change\n")
    found = find_feature("dip_in_python", rows).entry
    assert found is not None and found.status == NOT_TRIED
    with pytest.raises(MissingDataError, match="bring back the code that it was"):
        find_feature("in_registry", rows)
    assert [entry.kind for entry in list_entries(rows)][-1] == "plugin"
