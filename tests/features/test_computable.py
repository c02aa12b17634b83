"""One face for expressions and plugins: what a text means, what it is computed to, and what is refused."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigurationError, DataError, ExpressionError, MissingDataError
from core.market.panel import Panel
from core.store.artifacts import FileArtifactStore
from features import FunctionFeature, PluginFeature, compute, load_plugins, parse
from features.computable import Computable, is_plugin_text, resolve, source_sha256
from features.point_in_time import EVENT_COLUMNS, Events, join_events
from features.snapshots import load_snapshot, save_snapshot
from tests.features.panels import build_panel
from tests.packages import installed


def body(panel: Panel) -> np.ndarray:
    return panel.close / panel.open - 1.0


BODY = FunctionFeature(
    name="body",
    version="1",
    hypothesis="Strong closes go on.",
    lookback=0,
    columns=frozenset({"open", "close"}),
    function=body,
)


def known() -> Mapping[str, PluginFeature]:
    return {"body": BODY}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return build_panel(300, 5)


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    with installed(tmp_path) as file:
        yield file


def test_an_expression_is_its_canonical_form(panel: Panel) -> None:
    found = resolve(" rank( trend*2 )", plugins=known, features={"trend": "close / open"})
    expression = parse("rank(close / open * 2)")
    assert (found.canonical, found.sha256, found.lookback) == (expression.canonical, expression.sha256, expression.lookback)
    assert (found.columns, found.event_kinds, found.is_plugin) == ({"close", "open"}, frozenset(), False)
    np.testing.assert_array_equal(found.compute(panel), compute(expression, panel))
    assert found.check(panel).fault is None


def test_plugins_are_loaded_only_when_one_is_named() -> None:
    def broken() -> Mapping[str, PluginFeature]:
        raise ConfigurationError("a package is broken")

    resolve("close / open", plugins=broken)
    with pytest.raises(ConfigurationError, match="a package is broken"):
        resolve("plugin:body", plugins=broken)


def test_a_plugin_is_its_name_its_version_and_its_source(panel: Panel) -> None:
    digits = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    found = resolve(" plugin:body ", plugins=known)
    assert found.canonical == f"plugin:body@1#{digits}"
    assert found.sha256 == hashlib.sha256(found.canonical.encode()).hexdigest()
    assert (found.is_plugin, found.lookback, found.columns) == (True, 0, {"open", "close"})
    for text in (found.canonical, "plugin:body@1", f"plugin:body#{digits}"):
        assert is_plugin_text(text)
        assert resolve(text, plugins=known) == found
    np.testing.assert_array_equal(found.compute(panel), panel.close / panel.open - 1.0)
    assert Computable.of(replace(BODY, version="2")).sha256 != found.sha256


def test_the_source_is_that_of_the_function_inside(package: Path) -> None:
    here = source_sha256(BODY)
    assert source_sha256(replace(BODY, function=functools.partial(body))) == here
    assert source_sha256(replace(BODY, function=functools.wraps(body)(lambda panel: body(panel)))) == here
    assert source_sha256(load_plugins()["dip_in_python"]) == hashlib.sha256(package.read_bytes()).hexdigest() != here


def test_other_line_ends_are_the_same_source(package: Path) -> None:
    before = source_sha256(load_plugins()["dip_in_python"])
    package.write_bytes(package.read_bytes().replace(b"\n", b"\r\n"))
    assert source_sha256(load_plugins()["dip_in_python"]) == before


def test_source_that_cannot_be_read_is_no_identity(package: Path) -> None:
    plugin = load_plugins()["dip_in_python"]
    package.unlink()
    with pytest.raises(ConfigurationError, match=r"source of the plugin dip_in_python cannot be read .*define it in a file"):
        Computable.of(plugin)


def test_changed_code_or_another_version_is_not_the_feature_that_was_asked_for(package: Path) -> None:
    before = resolve("plugin:dip_in_python", plugins=load_plugins).canonical
    package.write_text(package.read_text() + "\n# a change\n")
    with pytest.raises(MissingDataError, match=r"the plugin here is `plugin:dip_in_python@1#.*propose `plugin:dip_in_python`"):
        resolve(before, plugins=load_plugins)
    with pytest.raises(MissingDataError, match=r"`plugin:dip_in_python@2` is asked for"):
        resolve("plugin:dip_in_python@2", plugins=load_plugins)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("plugin:bodi", MissingDataError, r"there is no plugin 'bodi'. Did you mean body\? There are body"),
        ("plugin:", ExpressionError, "a plugin is written `plugin:name`"),
        ("plugin:Body of evidence", ExpressionError, "a plugin is written `plugin:name`"),
        ("rank(plugin:body)", ExpressionError, "is not part of the language"),
    ],
)
def test_a_text_that_means_nothing_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(text, plugins=known)


def test_a_fault_is_named_a_leak_or_another_breach(package: Path, panel: Panel) -> None:
    plugins = load_plugins()
    faults = {name: Computable.of(plugins[name]).check(panel) for name in ("dip_in_python", "tomorrow", "careless")}
    assert {name: soundness.fault for name, soundness in faults.items()} == {
        "dip_in_python": None,
        "tomorrow": "leak",
        "careless": "contract",
    }
    assert faults["dip_in_python"].n_checks > 40
    assert "no_leak: leak: " in faults["tomorrow"].summary
    assert "float64 is expected, got float32" in faults["careless"].summary


def test_what_a_plugin_needs_must_be_there(package: Path, panel: Panel) -> None:
    closes = Panel(index=panel.index, symbols=panel.symbols, close=panel.close)
    with pytest.raises(MissingDataError, match="the plugin body reads open; the data set has close"):
        Computable.of(BODY).compute(closes)
    with pytest.raises(MissingDataError, match="the plugin news reads events of kind news, and there are none here"):
        Computable.of(load_plugins()["news"]).check(panel)


def test_what_a_plugin_raises_is_a_fault_of_the_data_for_it(panel: Panel) -> None:
    def fail(panel: Panel) -> np.ndarray:
        raise ZeroDivisionError("no bars today")

    with pytest.raises(DataError, match="the plugin body raised ZeroDivisionError: no bars today"):
        Computable.of(replace(BODY, function=fail)).compute(panel)


def test_infinite_is_missing(panel: Panel) -> None:
    found = Computable.of(replace(BODY, function=lambda panel: np.full(panel.shape, np.inf)))
    assert np.isnan(found.compute(panel)).all()


def test_a_snapshot_of_a_plugin_is_read_back_and_no_other(panel: Panel, package: Path, tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path / "artifacts")
    for found in (Computable.of(BODY), Computable.of(load_plugins()["tomorrow"])):
        saved = save_snapshot(found, panel, artifacts)
        assert (saved.expression, saved.expression_sha256, saved.lookback) == (found.canonical, found.sha256, found.lookback)
        matrix = load_snapshot(saved.uri, artifacts, expression=found, panel=panel)
        np.testing.assert_array_equal(matrix.values, found.compute(panel))
        with pytest.raises(DataError, match="is another snapshot: `expression` must be "):
            load_snapshot(saved, artifacts, expression=Computable.of(replace(BODY, version="2")))


# Events


def news_count(panel: Panel, events: Events) -> np.ndarray:
    return join_events(panel, events.of_kind("news"), how="count")


NEWS_COUNT = FunctionFeature(
    name="news_count",
    version="1",
    hypothesis="Much talked about, little bought.",
    lookback=0,
    columns=frozenset({"close"}),
    event_kinds=frozenset({"news"}),
    function=news_count,
)


def events_of(panel: Panel, *bars: int, kind: str = "news") -> Events:
    rows = [(kind, panel.symbols[bar % panel.n_assets], panel.index[bar], panel.index[bar]) for bar in bars]
    return Events(table=pd.DataFrame(rows, columns=list(EVENT_COLUMNS)))


def test_a_plugin_reads_events_as_they_were_known_at_the_last_bar(panel: Panel) -> None:
    asked = []

    def load_events(as_of: datetime) -> Events:
        asked.append(as_of)
        return events_of(panel, *range(0, 300, 2))  # a source that tells more than it was asked for

    found = resolve("plugin:news_count", plugins=lambda: {"news_count": NEWS_COUNT}, load_events=load_events)
    part = panel.slice(0, 101)
    values = found.compute(part)
    assert asked == [panel.index[100]]
    np.testing.assert_array_equal(values, found.compute(panel)[:101])
    assert values[100].sum() == 51
    assert found.check(part).fault is None


def test_a_plugin_whose_events_are_of_other_kinds_or_symbols_is_refused(panel: Panel) -> None:
    for events in (events_of(panel, 1, kind="weather"), events_of(panel)):
        found = Computable.of(NEWS_COUNT, lambda as_of, events=events: events)  # type: ignore[misc]
        with pytest.raises(MissingDataError, match="reads events of kind news, and there are none here"):
            found.compute(panel)
    foreign = panel.slice(0, 50)
    others = Panel(index=foreign.index, symbols=tuple("VWXYZ"), close=foreign.close)
    with pytest.raises(MissingDataError, match="reads events of kind news"):
        Computable.of(NEWS_COUNT, lambda as_of: events_of(panel, 1, 2)).compute(others)


def test_a_plugin_that_looks_ahead_of_its_events_is_a_leak(panel: Panel) -> None:
    def ahead(panel: Panel, events: Events) -> np.ndarray:
        counts = news_count(panel, events)
        return np.vstack([counts[1:], counts[-1:]])

    found = Computable.of(replace(NEWS_COUNT, function=ahead), lambda as_of: events_of(panel, *range(0, 300, 3)))
    assert found.check(panel).fault == "leak"
