"""One process trades on a store at a time."""

import os
from dataclasses import replace

import psycopg
import pytest

from core.errors import StoreConflictError, StoreUnavailableError
from core.store.opening import Store
from core.store.trading_lock import trading_alone


@pytest.fixture
def direct(store: Store, database: str) -> Store:
    """A store with a connection of Postgres's own, over whichever transport its rows go."""
    return replace(store, conninfo=database)


def test_a_second_trader_is_told_who_trades_and_what_to_do(direct: Store) -> None:
    told = f"process {os.getpid()} trades on this store.*wait for it to end or stop it"
    with trading_alone(direct), pytest.raises(StoreConflictError, match=told), trading_alone(direct):
        raise AssertionError("two traded at once")
    with trading_alone(direct) as check:
        check()


def test_a_trader_that_fails_lets_go(direct: Store) -> None:
    with pytest.raises(ZeroDivisionError), trading_alone(direct):
        raise ZeroDivisionError
    with trading_alone(direct):
        pass


def test_a_trader_that_lost_its_lock_hears_of_it(direct: Store) -> None:
    with trading_alone(direct) as check, psycopg.connect(direct.require_conninfo(), autocommit=True) as other:
        other.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name = %s",
            [f"aqf-trading-{os.getpid()}"],
        )
        with pytest.raises(StoreUnavailableError):
            check()


def test_without_a_connection_of_its_own_nothing_is_locked(store: Store) -> None:
    away = replace(store, conninfo=None)
    with trading_alone(away), trading_alone(away) as check:
        check()
