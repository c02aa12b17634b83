"""What every gateway promises, whatever carries its rows."""

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.range import Range

from core.errors import StoreConflictError, StoreError, StoreUnavailableError
from core.store.gateway import Gateway
from core.store.postgres import as_jsonb
from tests.core.store.conftest import HAS_HOSTED
from tests.core.store.contract.things import NAIVE, NOON, ONE, check_stored, full_row, three


class Mood(StrEnum):
    CALM = "calm"


@pytest.mark.skipif(HAS_HOSTED, reason="the contract runs on the hosted project")
def test_a_hosted_project_keeps_the_contract() -> None:
    pytest.skip("set SUPABASE_TEST_URL, SUPABASE_TEST_SERVICE_ROLE_KEY and SUPABASE_TEST_DB_URL to a project nobody needs")


def test_it_is_a_gateway(gateway: Gateway) -> None:
    assert isinstance(gateway, Gateway)


def test_insert_returns_the_rows_as_stored(gateway: Gateway) -> None:
    rows = gateway.insert("things", [full_row(1), full_row(2)])
    assert len(rows) == 2
    check_stored(rows[0], 1)
    check_stored(rows[1], 2)


def test_insert_of_nothing_does_nothing(gateway: Gateway) -> None:
    assert gateway.insert("things", []) == []
    assert gateway.upsert("things", [], on_conflict=("id",)) == 0
    assert gateway.select("things") == []


@pytest.mark.parametrize("other", [{"id": 2}, {"id": 2, "name": "b", "value": 1.0}, {"id": 2, "value": 1.0}])
@pytest.mark.parametrize("verb", ["insert", "upsert"])
def test_rows_with_different_columns_are_refused_rather_than_cut(gateway: Gateway, verb: str, other: dict[str, Any]) -> None:
    extra = {"on_conflict": ("id",)} if verb == "upsert" else {}
    with pytest.raises(StoreError, match=r"all rows must have the columns id, name; row 1 has id"):
        getattr(gateway, verb)("things", [{"id": 1, "name": "a"}, other], **extra)
    assert gateway.select("things") == []


def test_upsert_inserts_then_replaces(gateway: Gateway) -> None:
    assert gateway.upsert("things", [full_row(1), full_row(2)], on_conflict=("id",)) == 2
    check_stored(gateway.select("things", where={"id": 1})[0], 1)
    changed = full_row(2) | {"value": 9.0, "mood": Mood.CALM, "meta": [1, 2], "words": []}
    assert gateway.upsert("things", [changed, full_row(3)], on_conflict=("id",)) == 2
    second = gateway.select("things", columns=("value", "mood", "meta", "words"), where={"id": 2})
    assert second == [{"value": 9.0, "mood": "calm", "meta": [1, 2], "words": []}]
    check_stored(gateway.select("things", where={"id": 1})[0], 1)
    check_stored(gateway.select("things", where={"id": 3})[0], 3)


def test_upsert_leaves_columns_alone_that_it_does_not_name(gateway: Gateway) -> None:
    gateway.insert("things", [full_row(1)])
    gateway.upsert("things", [{"id": 1, "name": "thing 1", "value": 7.0}], on_conflict=("id",))
    assert gateway.select("things", columns=("value", "cost")) == [{"value": 7.0, "cost": Decimal("0.125")}]


def test_upsert_of_the_key_alone_keeps_what_is_there(gateway: Gateway) -> None:
    three(gateway)
    assert gateway.upsert("things", [{"name": "a", "id": 1}], on_conflict=("name", "id")[:1]) == 1
    assert gateway.select("things", columns=("value",), where={"id": 1}) == [{"value": 1.5}]


def test_upsert_takes_thousands_of_rows(gateway: Gateway) -> None:
    rows = [{"id": i, "name": str(i), "value": i / 7} for i in range(1, 5001)]
    assert gateway.upsert("things", rows, on_conflict=("id",)) == 5000
    assert gateway.upsert("things", rows, on_conflict=("id",)) == 5000
    assert gateway.select("things", columns=("id", "name", "value"), order=("id",)) == rows


def test_upsert_refuses_the_same_key_twice_in_one_batch(gateway: Gateway) -> None:
    with pytest.raises(StoreError, match="cannot affect row a second time"):
        gateway.upsert("things", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], on_conflict=("id",))
    assert gateway.select("things") == []


def test_upsert_without_a_key_only_adds(gateway: Gateway) -> None:
    assert gateway.upsert("things", [full_row(1), full_row(2)], on_conflict=()) == 2
    check_stored(gateway.select("things", where={"id": 1})[0], 1)
    with pytest.raises(StoreConflictError, match="things_pkey"):
        gateway.upsert("things", [full_row(3), full_row(2)], on_conflict=())
    assert len(gateway.select("things")) == 2


def test_select_takes_columns_order_and_limit(gateway: Gateway) -> None:
    three(gateway)
    assert gateway.select("things", columns=("name",), order=("-id",), limit=2) == [{"name": "c"}, {"name": "b"}]
    assert gateway.select("things", columns=("id",), order=("value", "-name")) == [{"id": 3}, {"id": 1}, {"id": 2}]
    assert gateway.select("things", limit=0) == []


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (None, [1, 2, 3]),
        ({"name": "b"}, [2]),
        ({"value": ("eq", 1.5)}, [1]),
        ({"name": ("neq", "b")}, [1, 3]),
        ({"value": ("lt", 1.5)}, [3]),
        ({"value": ("lte", 1.5)}, [1, 3]),
        ({"id": ("gt", 1)}, [2, 3]),
        ({"id": ("gte", 2)}, [2, 3]),
        ({"id": ("in", [1, 3, 9])}, [1, 3]),
        ({"name": ("in", ["a", "b"])}, [1, 2]),
        ({"id": ("in", [])}, []),
        ({"value": ("is", None)}, [2]),
        ({"id": ("gt", 1), "name": ("neq", "c")}, [2]),
    ],
)
def test_where_finds_the_rows_that_match_everything(gateway: Gateway, where: dict[str, Any] | None, ids: list[int]) -> None:
    three(gateway)
    assert [row["id"] for row in gateway.select("things", where=where, order=("id",))] == ids


def test_is_tells_true_from_false(gateway: Gateway) -> None:
    gateway.insert("things", [{"id": i, "name": str(i), "flag": flag} for i, flag in [(1, True), (2, False), (3, None)]])
    for value, id in [(True, 1), (False, 2), (None, 3)]:
        assert [row["id"] for row in gateway.select("things", where={"flag": ("is", value)})] == [id]


def test_in_takes_text_for_every_type_of_column(gateway: Gateway) -> None:
    gateway.insert("things", [full_row(1)])
    gateway.insert("parts", [{"thing_id": 1}])
    assert len(gateway.select("things", where={"mood": ("in", ["wild", "calm"])})) == 1
    assert len(gateway.select("things", where={"at": ("in", [NOON.isoformat()])})) == 1
    assert len(gateway.select("things", where={"at": ("in", [NOON, NOON + timedelta(1)])})) == 1
    assert gateway.select("datasets", where={"dataset_id": ("in", [str(ONE)])}) == []


def test_equality_with_nothing_is_refused_because_it_never_holds(gateway: Gateway) -> None:
    with pytest.raises(StoreError, match=r"ask for value with \('is', None\)"):
        gateway.select("things", where={"value": None})


def test_an_unknown_operator_is_refused_with_those_there_are(gateway: Gateway) -> None:
    with pytest.raises(StoreError, match=r"unknown operator 'like' on name; allowed are eq, neq, lt, lte, gt, gte, in, is"):
        gateway.select("things", where={"name": ("like", "a%")})


def test_names_cannot_carry_sql(gateway: Gateway) -> None:
    three(gateway)
    for attempt in ('id"; drop table things; --', "id; drop table things"):
        with pytest.raises(StoreError):
            gateway.select("things", columns=(attempt,))
        with pytest.raises(StoreError):
            gateway.select("things", where={attempt: 1})
        with pytest.raises(StoreError):
            gateway.select(attempt)
    assert len(gateway.select("things", where={"name": ("neq", "'; drop table things; --")})) == 3


def test_update_returns_the_changed_rows(gateway: Gateway) -> None:
    three(gateway)
    rows = gateway.update("things", {"value": 8.0, "meta": {"a": 1}}, where={"id": ("lte", 2)})
    assert [(row["id"], row["value"], row["meta"]) for row in sorted(rows, key=lambda row: row["id"])] == [
        (1, 8.0, {"a": 1}),
        (2, 8.0, {"a": 1}),
    ]
    assert gateway.update("things", {"value": 8.0}, where={"id": 99}) == []
    assert gateway.select("things", columns=("value",), where={"id": 3}) == [{"value": -4.0}]


def test_delete_counts_the_rows(gateway: Gateway) -> None:
    three(gateway)
    assert gateway.delete("things", where={"value": ("is", None)}) == 1
    assert gateway.delete("things", where={"id": 2}) == 0
    assert len(gateway.select("things")) == 2


def test_update_and_delete_of_everything_are_refused(gateway: Gateway) -> None:
    three(gateway)
    with pytest.raises(StoreError, match="update needs a condition"):
        gateway.update("things", {"value": 0.0}, where={})
    with pytest.raises(StoreError, match="delete needs a condition"):
        gateway.delete("things", where={})
    assert [row["value"] for row in gateway.select("things", order=("id",))] == [1.5, None, -4.0]


def test_rpc_returns_a_scalar_rows_or_nothing(gateway: Gateway) -> None:
    three(gateway)
    assert gateway.rpc("twice", x=21.0) == [{"twice": 42.0}]
    assert [row["name"] for row in gateway.rpc("first_things", n=2)] == ["a", "b"]
    assert gateway.rpc("nothing") in ([{"nothing": ""}], [{"nothing": None}])
    with pytest.raises(StoreError, match="no_such"):
        gateway.rpc("no_such", x=1)


@pytest.mark.parametrize("verb", ["insert", "upsert"])
def test_nan_and_infinity_survive(gateway: Gateway, verb: str) -> None:
    values = [math.nan, math.inf, -math.inf, 0.0, 5e-324, 1.7976931348623157e308]
    rows = [{"id": i, "name": str(i), "value": value} for i, value in enumerate(values, start=1)]
    if verb == "insert":
        gateway.insert("things", rows)
    else:
        gateway.upsert("things", rows, on_conflict=("id",))
    back = [row["value"] for row in gateway.select("things", order=("id",))]
    assert np.array(back).tobytes() == np.array(values).tobytes()


def test_nan_is_not_json_and_is_refused(gateway: Gateway) -> None:
    with pytest.raises(StoreError, match="json"):
        gateway.insert("things", [{"id": 1, "name": "a", "meta": {"x": math.nan}}])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.floats(width=64).map(lambda value: value + 0.0),  # over HTTP zero has no sign
            st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
            st.datetimes(min_value=NAIVE.replace(year=1700), max_value=NAIVE.replace(year=2200), timezones=st.just(UTC)).map(
                lambda time: time.replace(fold=0)
            ),
        ),
        max_size=20,
    )
)
def test_whatever_goes_in_by_copy_comes_out_again(gateway: Gateway, values: list[tuple[float, str, datetime]]) -> None:
    gateway.delete("things", where={"id": ("gt", 0)})
    rows = [
        {"id": i, "name": f"{i}{text}", "value": value, "at": at, "words": [text], "meta": {"text": [text]}}
        for i, (value, text, at) in enumerate(values, start=1)
    ]
    gateway.upsert("things", rows, on_conflict=("id",))
    back = gateway.select("things", columns=("id", "name", "value", "at", "words", "meta"), order=("id",))
    assert repr(back) == repr(rows)


def test_times_come_back_in_utc_whatever_zone_they_went_in(gateway: Gateway) -> None:
    tokyo = timezone(timedelta(hours=9))
    gateway.insert("things", [{"id": 1, "name": "a", "at": NOON.astimezone(tokyo)}])
    gateway.upsert("things", [{"id": 2, "name": "b", "at": NOON.astimezone(tokyo)}], on_conflict=("id",))
    for row in gateway.select("things"):
        assert row["at"] == NOON
        assert row["at"].utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda g: g.insert("things", [{"id": 1, "name": "a", "at": NAIVE}]),
        lambda g: g.upsert("things", [{"id": 1, "name": "a", "at": NAIVE}], on_conflict=("id",)),
        lambda g: g.upsert("things", [{"id": 1, "name": "a", "span": Range(NAIVE, None)}], on_conflict=("id",)),
        lambda g: g.upsert("things", [{"id": 1, "name": "a", "span": Range(None, NAIVE)}], on_conflict=("id",)),
        lambda g: g.update("things", {"at": NAIVE}, where={"id": 1}),
        lambda g: g.select("things", where={"at": ("lt", NAIVE)}),
        lambda g: g.select("things", where={"at": ("in", [NAIVE])}),
        lambda g: g.delete("things", where={"at": NAIVE}),
        lambda g: g.rpc("twice", x=NAIVE),
        lambda g: g.rpc("twice", x=[NAIVE]),
    ],
    ids=["insert", "upsert", "range from", "range to", "update", "select", "in", "delete", "rpc", "rpc with a list"],
)
def test_a_naive_time_is_refused_everywhere(gateway: Gateway, attempt: Any) -> None:
    with pytest.raises(StoreError, match=r"a time must carry its zone, was the naive 2024-03-01T12:00:00"):
        attempt(gateway)


def test_a_list_is_sent_as_json_where_it_is_marked(gateway: Gateway) -> None:
    gateway.insert("things", [{"id": 1, "name": "a", "meta": as_jsonb([1, {"b": 2}])}])
    assert gateway.select("things")[0]["meta"] == [1, {"b": 2}]


def test_a_row_that_is_there_already_is_a_conflict(gateway: Gateway) -> None:
    three(gateway)
    with pytest.raises(StoreConflictError, match=r"things_name_key.*\(name\)=\(a\) already exists"):
        gateway.insert("things", [{"id": 9, "name": "a"}])


def test_a_row_that_others_need_is_a_conflict(gateway: Gateway) -> None:
    three(gateway)
    gateway.insert("parts", [{"thing_id": 1}])
    with pytest.raises(StoreConflictError, match="violates foreign key constraint"):
        gateway.delete("things", where={"id": 1})
    with pytest.raises(StoreConflictError, match="violates foreign key constraint"):
        gateway.insert("parts", [{"thing_id": 77}])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": -1, "name": "a"}, "violates check constraint"),
        ({"id": 1, "name": None}, "null value in column"),
        ({"id": 1, "name": "a", "colour": 1}, 'column "colour".* does not exist'),
        ({"id": 1, "name": "a", "mood": "sad"}, "invalid input value for enum mood"),
        ({"id": 1, "name": "a", "vector": [1.0]}, "expected 3 dimensions, not 1"),
    ],
)
@pytest.mark.parametrize("verb", ["insert", "upsert"])
def test_what_the_database_refuses_is_said_in_its_words(gateway: Gateway, verb: str, row: dict[str, Any], text: str) -> None:
    if "vector" in row:
        row = row | {"vector": np.array(row["vector"], dtype=np.float32)}
    extra = {"on_conflict": ("id",)} if verb == "upsert" else {}
    with pytest.raises(StoreError, match=text) as refusal:
        getattr(gateway, verb)("things", [row], **extra)
    assert type(refusal.value) is StoreError


@pytest.mark.parametrize("verb", ["select", "insert", "upsert", "update", "delete"])
def test_an_unknown_table_is_named(gateway: Gateway, verb: str) -> None:
    calls: dict[str, Any] = {
        "select": lambda: gateway.select("nowhere"),
        "insert": lambda: gateway.insert("nowhere", [{"id": 1}]),
        "upsert": lambda: gateway.upsert("nowhere", [{"id": 1}], on_conflict=("id",)),
        "update": lambda: gateway.update("nowhere", {"id": 1}, where={"id": 1}),
        "delete": lambda: gateway.delete("nowhere", where={"id": 1}),
    }
    with pytest.raises(StoreError, match="nowhere"):
        calls[verb]()


@pytest.mark.parametrize("verb", ["insert", "upsert"])
def test_a_batch_is_all_or_nothing(gateway: Gateway, verb: str) -> None:
    rows = [{"id": i, "name": str(i)} for i in [*range(1, 500), -1]]
    extra = {"on_conflict": ("id",)} if verb == "upsert" else {}
    with pytest.raises(StoreError, match="check constraint"):
        getattr(gateway, verb)("things", rows, **extra)
    assert gateway.select("things") == []


def test_an_update_is_all_or_nothing(gateway: Gateway) -> None:
    three(gateway)
    with pytest.raises(StoreConflictError):
        gateway.update("things", {"name": "same"}, where={"id": ("gt", 0)})
    assert [row["name"] for row in gateway.select("things", order=("id",))] == ["a", "b", "c"]


def test_a_gateway_goes_on_after_an_error(gateway: Gateway) -> None:
    for _ in range(20):
        with pytest.raises(StoreError):
            gateway.select("nowhere")
    assert gateway.select("things") == []


def test_a_closed_gateway_says_that_it_is_out_of_reach(gateway: Gateway) -> None:
    gateway.close()
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        gateway.select("things")
