"""What the news of suppliers says of their customers' shares, joined to bars by the time it was published."""

from __future__ import annotations

import datetime as dt

import numpy as np

from core.market.panel import FloatArray, Panel
from features.plugins import FunctionFeature
from features.point_in_time import Events, join_events
from use_cases.supplier_disruption.news import DISRUPTION, RECOVERY

_QUARTER, _MONTH = dt.timedelta(days=91), dt.timedelta(days=30)
_REACTION_BARS = 5


def _trouble(panel: Panel, events: Events) -> FloatArray:
    return -join_events(panel, events.of_kind(DISRUPTION), how="count", max_age=_QUARTER)


def _relief(panel: Panel, events: Events) -> FloatArray:
    good = join_events(panel, events.of_kind(RECOVERY), how="count", max_age=_MONTH)
    return good - join_events(panel, events.of_kind(DISRUPTION), how="count", max_age=_MONTH)


def _overreaction(panel: Panel, events: Events) -> FloatArray:
    recent = join_events(panel, events.of_kind(DISRUPTION), how="count", max_age=_MONTH) > 0.0
    fall = np.full(panel.shape, np.nan)
    fall[_REACTION_BARS:] = 1.0 - panel.close[_REACTION_BARS:] / panel.close[:-_REACTION_BARS]
    return np.where(recent, fall, np.where(np.isnan(fall), np.nan, 0.0))


TROUBLE = FunctionFeature(
    name="supplier_trouble",
    version="1",
    hypothesis="Shares whose suppliers were in trouble during the last quarter lag, because the cost is underestimated.",
    lookback=0,
    columns=frozenset({"close"}),
    event_kinds=frozenset({DISRUPTION}),
    function=_trouble,
)
RELIEF = FunctionFeature(
    name="supplier_relief",
    version="1",
    hypothesis="More good than bad news of suppliers during a month is not in the price at once.",
    lookback=0,
    columns=frozenset({"close"}),
    event_kinds=frozenset({DISRUPTION, RECOVERY}),
    function=_relief,
)
OVERREACTION = FunctionFeature(
    name="disruption_overreaction",
    version="1",
    hypothesis="A share that fell in the week of a supplier's trouble fell too far and comes back.",
    lookback=_REACTION_BARS,
    columns=frozenset({"close"}),
    event_kinds=frozenset({DISRUPTION}),
    function=_overreaction,
)
FEATURES = (TROUBLE, RELIEF, OVERREACTION)
