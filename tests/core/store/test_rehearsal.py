"""What is rehearsed is undone, and a store beside is not the store."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import StoreConflictError, StoreError
from core.settings import Settings
from core.store.opening import open_store
from core.store.rehearsal import Rehearsal, RehearsalGateway, open_rehearsal, side_store
from core.types import MacroContext, MarketRegime

NOW = datetime(2024, 3, 4, tzinfo=UTC)
AUDIT = {"event_type": "test", "actor": "test", "subject": "test"}


@pytest.fixture
def gateway(database: str) -> Iterator[RehearsalGateway]:
    gateway = RehearsalGateway(database)
    gateway.open()
    yield gateway
    gateway.close()


@pytest.fixture
def rehearsal(gateway: RehearsalGateway, tmp_path: Path) -> Rehearsal:
    return Rehearsal(gateway, tmp_path)


def macro(day: int) -> MacroContext:
    return MacroContext(as_of=NOW.replace(day=day), regime=MarketRegime.BULL, vix=14.0, sp500_1m_return=0.03)


def test_every_rehearsal_finds_empty_tables(rehearsal: Rehearsal) -> None:
    for _ in range(2):
        with rehearsal.undone() as store:
            assert store.trading.latest_macro_context() is None
            for day in (1, 2, 2):  # three bulk writes on one connection
                store.trading.save_macro_context(macro(day))
            store.trading.append_audit(**AUDIT)
            assert store.trading.latest_macro_context() == macro(2)
            assert store.trading.verify_audit_log() == []


def test_it_is_undone_when_the_rehearsal_fails(rehearsal: Rehearsal) -> None:
    with pytest.raises(ZeroDivisionError), rehearsal.undone() as store:
        store.trading.save_macro_context(macro(1))
        raise ZeroDivisionError
    with rehearsal.undone() as store:
        assert store.trading.latest_macro_context() is None


def test_a_verb_that_is_refused_ends_the_rehearsal_and_not_the_next(rehearsal: Rehearsal) -> None:
    with rehearsal.undone() as store:
        row = {"movement_ref": "opening", "amount": 1.0, "moved_at": NOW}
        store.trading.gateway.insert("cash_movements", [row])
        with pytest.raises(StoreConflictError):
            store.trading.gateway.insert("cash_movements", [row])
        with pytest.raises(StoreError, match="aborted"):
            store.trading.list_positions()
    with rehearsal.undone() as store:
        assert store.trading.list_positions() == []


def test_nothing_is_written_outside_of_a_rehearsal(gateway: RehearsalGateway) -> None:
    with pytest.raises(StoreError, match="within `undone` only"):
        gateway.select("trades")


def test_a_rehearsal_and_a_store_beside_leave_the_store_alone(place: Path) -> None:
    settings = Settings(home=place / "home", keep_server=True)
    with open_store(settings) as store:
        store.trading.append_audit(**AUDIT)
    with open_rehearsal(settings) as rehearsal, rehearsal.undone() as undone:
        assert undone.trading.gateway.select("audit_log") == []
        undone.trading.append_audit(**AUDIT)
    for expected in (0, 1):
        with side_store(settings, "aqf_beside") as beside:
            assert len(beside.trading.gateway.select("audit_log")) == expected
            beside.trading.append_audit(**AUDIT)
    with open_store(settings) as store:
        assert len(store.trading.gateway.select("audit_log")) == 1
