"""The paper broker's account is the same however often the process that trades was killed."""

import random
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from core.store.postgres import PostgresGateway
from tests.agents.brokers.killed_paper import trade

ROOT = Path(__file__).resolve().parents[3]
TABLES = {
    "paper_accounts": "cash",
    "paper_orders": "client_order_id, status, filled_qty, stop_filled_qty, target_filled_qty, stop_triggered, exits_cancelled",
    "paper_fills": "exec_id, client_order_id, leg, side, qty, price, commission, filled_at",
    "paper_positions": "symbol, qty, avg_cost",
    "paper_bars": "symbol, last_at, close",
}


def book(owner: psycopg.Connection, account: str) -> dict[str, list[str]]:
    return {
        table: sorted(map(repr, owner.execute(f"select {columns} from {table} where account = %s", [account]).fetchall()))  # type: ignore[call-overload]
        for table, columns in TABLES.items()
    }


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.exhaustive)])
def test_kills_at_any_time_change_nothing(database: str, owner: psycopg.Connection, kills: int) -> None:
    gateway = PostgresGateway(database, role="service_role").open()
    trade(gateway, "whole")
    gateway.close()
    chance = random.Random(7)
    command = [sys.executable, "-m", "tests.agents.brokers.killed_paper", database]
    for _ in range(kills):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            time.sleep(chance.uniform(0.0, 0.4))
            process.kill()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    whole = book(owner, "whole")
    assert book(owner, "killed") == whole
    assert len(whole["paper_fills"]) > 100
