"""A small package that offers plugin features through real entry points, as an installed one would."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CODE = """
import numpy as np


class Dip:
    name = "dip_in_python"
    version = "1"
    hypothesis = "What fell over five days recovers."
    lookback = 5
    columns = frozenset({"close"})
    event_kinds = frozenset()

    def compute(self, panel, events=None):
        values = np.full(panel.shape, np.nan)
        values[5:] = 1.0 - panel.close[5:] / panel.close[:-5]
        return values


class Tomorrow(Dip):
    name = "tomorrow"
    hypothesis = "What rises tomorrow has risen."
    lookback = None

    def compute(self, panel, events=None):
        values = np.full(panel.shape, np.nan)
        values[:-1] = panel.close[1:] / panel.close[:-1] - 1.0
        return values


class Careless(Dip):
    name = "careless"

    def compute(self, panel, events=None):
        return super().compute(panel).astype(np.float32)


class Level(Dip):
    name = "level"
    lookback = 0

    def compute(self, panel, events=None):
        return -panel.close


class News(Dip):
    name = "news"
    event_kinds = frozenset({"news"})
"""
NAMES = {"careless": "Careless", "dip_in_python": "Dip", "level": "Level", "news": "News", "tomorrow": "Tomorrow"}


@contextmanager
def installed(folder: Path, code: str = CODE) -> Iterator[Path]:
    """Install the package for a while, and return the file with its code."""
    file = folder / "house_features.py"
    file.write_text(code)
    info = folder / "house_features-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-features\nVersion: 1.0\n")
    points = "\n".join(f"{name} = house_features:{kind}" for name, kind in NAMES.items())
    (info / "entry_points.txt").write_text(f"[aqf.features]\n{points}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield file
    sys.modules.pop("house_features", None)
