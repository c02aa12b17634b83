"""Planted leaks and clean look-alikes: what a leak gate must catch, and what it must let pass.

Run them against :func:`features.check_leaks`, or against a gate of your own::

    from features.planted import LEAKS, LOOK_ALIKES

    missed = [example.name for example in LEAKS if example.check(seed=7).passed]
    alarms = [example.name for example in LOOK_ALIKES if not example.check(seed=7).passed]
"""

from features.planted.example import Example
from features.planted.leaks import LEAKS
from features.planted.look_alikes import LOOK_ALIKES
from features.planted.markets import build_daily, build_intraday

__all__ = ["LEAKS", "LOOK_ALIKES", "Example", "build_daily", "build_intraday"]
