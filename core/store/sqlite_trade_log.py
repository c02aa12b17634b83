"""SqliteTradeLog: the trade log in one file, for a machine without a database server.

Hides the file, its journal (WAL: readers do not wait for the writer) and what SQLite lacks: exact decimals, booleans and
times. Promises the contract of :class:`core.store.trade_log.TradeLog`; several threads and processes may use the file.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from core.errors import MissingDataError, StoreConflictError, StoreError, StoreUnavailableError
from core.store.gateway import Row
from core.store.trade_log import check_closable
from core.store.trading_records import HitRate, NewTrade, Trade, TradeEntry, TradeExit, check_uuid, read_message
from core.types import Side

_STATEMENTS = dict(
    re.findall(
        r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)",
        (Path(__file__).parent / "sql" / "trade_log.sql").read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
)
_BOOLEANS = ("is_exploration", "paper_trading", "voided", "hit")
_BUSY_SECONDS = 30.0


def trade_log_path(home: Path) -> Path:
    """Return where the trade log of a home lies."""
    return home / "data" / "trade_log.db"


class SqliteTradeLog:
    """Keep trades in a SQLite file, which is made if it is not there.

    Parameters
    ----------
    path : Path
        The file; see `trade_log_path`.

    Raises
    ------
    StoreUnavailableError
        If the file cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"the trade log {path} cannot be made: {error}.") from error
        try:
            # SQLite does not wait where several change a new file's journal at once: one after the other.
            with FileLock(path.with_suffix(".lock"), timeout=_BUSY_SECONDS), self._connection() as connection:
                connection.execute("pragma journal_mode = wal")
                connection.executescript(f"begin immediate; {_STATEMENTS['schema']} commit;")
        except Timeout as error:
            raise StoreUnavailableError(
                f"the trade log {path} has been in use for {_BUSY_SECONDS:.0f} seconds: try again."
            ) from error

    def record_trade(self, trade: NewTrade) -> Trade:
        """Write down a decided trade, open and without a fill."""
        category, regime, band = trade.context_key.split("|")
        row = {**trade.to_dict(), "trade_id": str(uuid4()), "category": category, "regime": regime, "vix_band": band}
        return _trade(self._execute("insert", row))

    def record_entry(self, entry: TradeEntry) -> Trade:
        """Set what the broker filled of an open trade so far."""
        return _trade(self._execute("enter", entry.to_dict()), f"open trade of {entry.client_order_id}")

    def close_trade(self, outcome: TradeExit) -> Trade:
        """Close a trade and compute its outcome; the same outcome again changes nothing."""
        with self._connection() as connection:
            connection.execute("begin immediate")
            found = connection.execute(_STATEMENTS["get"], {"trade_id": outcome.trade_id}).fetchall()
            trade = _trade([dict(row) for row in found], f"trade {outcome.trade_id}")
            if not check_closable(trade, outcome):
                return trade
            values = {**outcome.to_dict(), **_outcome(trade, outcome)}
            rows = connection.execute(_STATEMENTS["close"], values).fetchall()
            connection.execute("commit")
        return _trade([dict(row) for row in rows])

    def void_trade(self, trade_id: str) -> Trade:
        """Take a trade out of every statistic; its row stays."""
        return _trade(self._execute("void", {"trade_id": check_uuid("trade_id", trade_id)}), f"trade {trade_id}")

    def get_trade(self, trade_id: str) -> Trade:
        """Return one trade, voided or not."""
        return _trade(self._execute("get", {"trade_id": check_uuid("trade_id", trade_id)}), f"trade {trade_id}")

    def list_trades(self, *, symbol: str | None = None, open_only: bool = False) -> list[Trade]:
        """Return trades that are not voided, oldest first."""
        rows = self._execute("list", {"symbol": symbol, "open_only": open_only})
        return [_trade([row]) for row in rows]

    def list_hit_rates(self) -> list[HitRate]:
        """Return what is known of every context, as of now."""
        return [read_message(HitRate, row) for row in self._execute("hit_rates", {"context_key": None})]

    def find_hit_rate(self, context_key: str) -> HitRate | None:
        """Return what is known of a context, as of now; None before its first trade."""
        rows = self._execute("hit_rates", {"context_key": context_key})
        return read_message(HitRate, rows[0]) if rows else None

    def count_closed(self) -> int:
        """Return how many trades are closed and count."""
        return int(self._execute("count_closed", {})[0]["n"])

    def last_trade_at(self, symbol: str) -> datetime | None:
        """Return when a symbol was last traded, for its cooldown."""
        at = self._execute("last_trade_at", {"symbol": symbol})[0]["at"]
        return None if at is None else datetime.fromisoformat(at)

    def _execute(self, statement: str, values: Row) -> list[Row]:
        with self._connection() as connection:
            return [dict(row) for row in connection.execute(_STATEMENTS[statement], values).fetchall()]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorname in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
                raise StoreConflictError(f"the trade is there already: {error}.") from error
            raise StoreError(str(error)) from error
        except sqlite3.DatabaseError as error:
            raise StoreUnavailableError(f"the trade log {self.path} cannot be used: {error}.") from error


def _trade(rows: list[Row], wanted: str = "trade") -> Trade:
    if not rows:
        raise MissingDataError(f"there is no {wanted}.")
    row = {name: bool(value) if name in _BOOLEANS and value is not None else value for name, value in rows[0].items()}
    return read_message(Trade, row)


def _outcome(trade: Trade, outcome: TradeExit) -> dict[str, Any]:
    """Compute in decimals, as Postgres does: a gain that the commission eats to the cent is no hit."""
    fill, qty = _decimal(trade.fill_price), _decimal(trade.qty)
    gain = (_decimal(outcome.exit_price) - fill) * qty * (1 if trade.side is Side.BUY else -1)
    commission = _decimal(trade.commission) + _decimal(outcome.commission)
    return {
        "commission": float(commission),
        "pnl_pct": float(gain / (fill * qty)),
        "net_pnl_pct": float((gain - commission) / (fill * qty)),
        "hit": gain > commission,
    }


def _decimal(number: float | None) -> Decimal:
    return Decimal(repr(number))
