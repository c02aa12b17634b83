"""Plugin features: where they come from, and what they must say of themselves."""

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from core.errors import ConfigurationError
from features import FunctionFeature, PluginFeature, load_plugins
from features import plugins as home
from tests.features.panels import build_panel

GAP = FunctionFeature(
    name="overnight_gap",
    version="1",
    hypothesis="A gap is filled during the day.",
    lookback=1,
    columns=frozenset({"open", "close"}),
    function=lambda panel: np.vstack([np.full((1, panel.n_assets), np.nan), panel.open[1:] / panel.close[:-1] - 1.0]),
)

MODULE = """
import numpy as np

class Range:
    name = "day_range"
    version = "2"
    hypothesis = "Wide days are followed by wide days."
    lookback = 0
    columns = frozenset({"high", "low"})
    event_kinds = frozenset()

    def compute(self, panel, events=None):
        return np.log(panel.high / panel.low)

RANGE = Range()
NUMBER = 3
OTHER = Range()

class Needy(Range):
    def __init__(self, path):
        self.path = path
"""


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Pretend that installed packages offer these entry points."""
    (tmp_path / "offered_features.py").write_text(MODULE)
    (tmp_path / "broken_features.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "raising_features.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def set_points(**points):
        found = [EntryPoint(name=name, value=value, group="aqf.features") for name, value in points.items()]
        monkeypatch.setattr(home, "entry_points", lambda group: found if group == "aqf.features" else [])

    yield set_points
    for name in ("offered_features", "broken_features", "raising_features"):
        sys.modules.pop(name, None)


def test_features_of_packages_and_of_the_caller_are_found_by_name(offer):
    offer(day_range="offered_features:Range")
    found = load_plugins([GAP])
    assert list(found) == ["day_range", "overnight_gap"]
    assert all(isinstance(feature, PluginFeature) for feature in found.values())
    panel = build_panel(50, 4)
    np.testing.assert_allclose(found["day_range"].compute(panel), np.log(panel.high / panel.low))
    with pytest.raises(TypeError):
        found["overnight_gap"] = GAP


def test_an_installed_package_is_found_through_its_metadata(tmp_path, monkeypatch):
    (tmp_path / "packaged_features.py").write_text(MODULE)
    info = tmp_path / "some_features-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-features\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aqf.features]\nday_range = packaged_features:Range\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_plugins()["day_range"].version == "2"
    (info / "entry_points.txt").write_text("[aqf.features]\nday_range = packaged_features:Gone\n")
    with pytest.raises(ConfigurationError, match=r"`day_range = packaged_features:Gone` of some-features cannot be loaded"):
        load_plugins()
    sys.modules.pop("packaged_features", None)


def test_an_object_serves_as_well_as_a_class(offer):
    offer(day_range="offered_features:RANGE")
    assert load_plugins()["day_range"].version == "2"


def test_without_plugins_there_are_none(offer):
    offer()
    assert dict(load_plugins()) == {}


def test_two_features_of_one_name_are_refused_with_both_places(offer):
    offer(day_range="offered_features:Range", wide="offered_features:OTHER")
    with pytest.raises(ConfigurationError, match=r"'day_range', one from `day_range = .*`, one from `wide = "):
        load_plugins()
    offer()
    with pytest.raises(ConfigurationError, match="one from the caller, one from the caller"):
        load_plugins([GAP, replace(GAP, version="2")])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("broken_features:X", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("nowhere_at_all:X", "ModuleNotFoundError"),
        ("offered_features:Missing", "AttributeError"),
        ("offered_features:Needy", "TypeError.*path"),
        ("raising_features:X", "RuntimeError: no licence"),
    ],
)
def test_a_broken_entry_point_is_named_with_its_reason(offer, value, reason):
    offer(broken=value)
    with pytest.raises(ConfigurationError, match=rf"`broken = {value}` cannot be loaded \({reason}"):
        load_plugins()


def test_what_is_no_feature_is_refused(offer):
    offer(number="offered_features:NUMBER")
    with pytest.raises(ConfigurationError, match=r"3 from `number = .*` is without name, version"):
        load_plugins()
    offer()
    with pytest.raises(ConfigurationError, match="a class, not built"):
        load_plugins([FunctionFeature])


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("name", "Overnight Gap"),
        ("name", ""),
        ("name", "close"),
        ("version", ""),
        ("version", 2),
        ("hypothesis", "  "),
        ("lookback", -1),
        ("lookback", 1.5),
        ("lookback", True),
        ("columns", ["close"]),
        ("event_kinds", frozenset({""})),
    ],
)
def test_a_description_that_is_incomplete_is_refused(offer, attribute, value):
    offer()
    with pytest.raises(ConfigurationError, match=f"`{attribute}` of a plugin feature must be"):
        load_plugins([replace(GAP, **{attribute: value})])
