"""Signals as they are sent: what is read as what it means, what is refused, and that nothing sent in ever ends a run."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.trading.case import open_case
from agents.trading.reading import UntimedSignalError, read_signal
from core.errors import DataError
from core.store.opening import Store
from core.types import BindingConstraint, RawSignal, Severity, SignalCategory, Stage
from tests.agents.trading.desk import NOW, build_desk, signal


def fields(**changes: Any) -> dict[str, Any]:
    return signal("AAA").to_dict() | changes


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-04T10:00:00-05:00",
        "2024-03-04T15:00:00Z",
        "2024-03-05T00:00:00+09:00",
        "2024-03-04 20:30:00+05:30",
        " 20240304T150000+0000 ",
    ],
)
def test_a_time_of_any_zone_is_the_moment_it_says(text: str) -> None:
    assert read_signal(fields(published_at=text)).published_at == datetime(2024, 3, 4, 15, tzinfo=UTC)


@given(st.timedeltas(timedelta(days=-20_000), timedelta(days=20_000)), st.integers(-14 * 60, 14 * 60))
def test_the_zone_a_time_is_written_in_changes_nothing(after: timedelta, minutes: int) -> None:
    moment = NOW + after
    sign, shown = "-" if minutes < 0 else "+", moment.replace(tzinfo=None) + timedelta(minutes=minutes)
    text = f"{shown.isoformat()}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    assert read_signal(fields(published_at=text)).published_at == moment


@pytest.mark.parametrize(
    "given_time",
    [
        "2024-03-04T15:00:00",
        "2024-03-04",
        "yesterday",
        "",
        None,
        1709564400,
        [],
        "0001-01-01T00:00:00+05:00",
        NOW,
    ],
)
def test_a_time_without_a_zone_or_that_is_none_is_refused(given_time: Any) -> None:
    with pytest.raises(UntimedSignalError, match="with its zone"):
        read_signal(fields(published_at=given_time))
    refusal = open_case(fields(published_at=given_time), NOW).refusal
    assert refusal is not None
    assert (refusal.stage, refusal.constraint) == (Stage.HERMES, BindingConstraint.STALE_SIGNAL)


def test_categories_and_severities_are_read_in_any_case() -> None:
    read = read_signal(fields(category="Supplier_Disruption", severity=" CRITICAL "))
    assert (read.category, read.severity) == (SignalCategory.SUPPLIER_DISRUPTION, Severity.CRITICAL)


def test_tickers_are_read_in_capitals_and_once_in_their_order() -> None:
    assert read_signal(fields(affected_tickers=["msft", "AAPL", "Msft", "brk.b"])).affected_tickers == ("MSFT", "AAPL", "BRK.B")


def test_what_a_signal_says_of_itself_is_read_as_it_was() -> None:
    told = signal("AAA", supplier="Acme", source_url="https://example.org")
    assert read_signal(told.to_dict()) == told
    assert read_signal(MappingProxyType(told.to_dict())) == told


@pytest.mark.parametrize(
    "change",
    [
        {"category": "gossip"},
        {"category": "positive news"},
        {"severity": "dire"},
        {"affected_tickers": ["AA PL"]},
        {"affected_tickers": "AAPL"},
        {"affected_tickers": ["AAPL", 7]},
        {"affected_tickers": [["AAPL"]]},
        {"note": "a field too many"},
    ],
)
def test_nothing_else_is_mended_and_it_is_no_matter_of_age(change: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        read_signal(fields(**change))
    assert not isinstance(caught.value, UntimedSignalError)
    refusal = open_case(fields(**change), NOW).refusal
    assert refusal is not None
    assert (refusal.stage, refusal.constraint) == (Stage.HERMES, BindingConstraint.OUT_OF_UNIVERSE)


@pytest.mark.parametrize(
    "change",
    [{"published_at": NOW.replace(tzinfo=None)}, {"affected_tickers": ("aapl",)}, {"severity": "critical"}],
    ids=["a naive time", "small letters", "a text"],
)
def test_a_message_stays_as_strict_as_it_is(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        signal("AAA", **change)


class Hostile:
    """Raises whatever it is asked."""

    def _fail(self, *_: Any) -> Any:
        raise RuntimeError("leave me alone")

    __repr__ = __str__ = __eq__ = __len__ = __bool__ = __iter__ = __getattr__ = _fail  # type: ignore[assignment]
    __hash__ = object.__hash__


def nested(wrap: Callable[[Any], Any], depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = wrap(value)
    return value


NASTY = {
    "a list of a hundred thousand levels": nested(lambda inner: [inner], 100_000),
    "a dict of a hundred thousand levels": nested(lambda inner: {"in": inner}, 100_000),
    "a tuple of a thousand levels": nested(lambda inner: (inner,), 1_000),
    "a list that doubles forty times": nested(lambda inner: [inner, inner], 40),
    "a number of five thousand digits": 10**5_000,
    "hostile": Hostile(),
    "half a character": "\udcff",
    "a NUL": "a\x00b",
    "no number": float("nan"),
    "bytes": b"\xff\x00",
    "a decimal": Decimal("NaN"),
    "a type": Hostile,
    "a set": {1, "a"},
}
FIELDS = ("signal_id", "headline", "published_at", "category", "severity", "affected_tickers", "supplier", "summary", "more")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_nothing_nasty_in_a_field_raises(nasty: Any, name: str) -> None:
    for value in (nasty, [nasty]):
        case = open_case(fields(**{name: value}), NOW)
        assert case.refusal is not None
        assert len(case.raw_text or "") <= 100_000
        case.build_trace(NOW)


def test_what_cannot_be_read_gets_a_trace_each_time_it_comes(store: Store) -> None:
    desk = build_desk(store)
    traces = desk.pipeline.run([None, None, "junk", None])
    desk.clock.advance(timedelta(minutes=1))
    traces += desk.pipeline.run([None])
    assert {trace.killed_at_stage for trace in traces} == {Stage.HERMES}
    assert len({trace.trace_id for trace in traces}) == len(desk.rows("decision_traces")) == 5
    assert len(desk.rows("signals")) == 2


def circle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.datetimes(), st.decimals(),
    st.characters(), st.sampled_from(list(NASTY)).map(lambda name: NASTY[name]), st.builds(circle), st.builds(object),
    st.sampled_from(["AAA", "positive_news", "HIGH", NOW.isoformat(), "2024-03-04T10:00:00-05:00"]),
)  # fmt: skip
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
)
almost = st.builds(lambda changes: fields() | changes, st.dictionaries(st.sampled_from(FIELDS), anything, max_size=3))
lacking = st.builds(
    lambda gone: {name: value for name, value in fields().items() if name not in gone}, st.sets(st.sampled_from(FIELDS))
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(items=st.lists(anything | almost | lacking | st.builds(signal), max_size=4))
def test_whatever_is_sent_in_each_gets_a_trace(store: Store, items: list[Any]) -> None:
    desk = build_desk(store)
    traces = desk.pipeline.run(items)
    assert len(traces) == len(items)
    for item, trace in zip(items, traces, strict=True):
        assert trace.killed_at_stage is not None or isinstance(item, dict | RawSignal)
        assert trace.decided_at == NOW
