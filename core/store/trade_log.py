"""TradeLog: every trade from its decision to its outcome, and the hit rates that follow from them.

Hides where the rows lie. `PostgresTradeLog` keeps them in the store, `SqliteTradeLog` (in its own module) in a file; both
pass the same contract, so that sizing and seniority read what execution wrote, whichever is in force.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Protocol, runtime_checkable

from core.errors import MissingDataError, StoreConflictError, StoreError
from core.store.gateway import Gateway, Row
from core.store.trading_records import HitRate, NewTrade, Trade, TradeEntry, TradeExit, check_uuid, read_message

_log = logging.getLogger(__name__)


@runtime_checkable
class TradeLog(Protocol):
    """Keep trades.

    Raises
    ------
    StoreConflictError
        A trade is there already, or is closed with another outcome.
    MissingDataError
        There is no such trade.
    StoreError
        The store refused or cannot be reached.
    """

    def record_trade(self, trade: NewTrade) -> Trade:
        """Write down a decided trade, open and without a fill."""
        ...

    def record_entry(self, entry: TradeEntry) -> Trade:
        """Set what the broker filled of an open trade so far."""
        ...

    def close_trade(self, outcome: TradeExit) -> Trade:
        """Close a trade and compute its outcome; the same outcome again changes nothing."""
        ...

    def void_trade(self, trade_id: str) -> Trade:
        """Take a trade out of every statistic; its row stays."""
        ...

    def get_trade(self, trade_id: str) -> Trade:
        """Return one trade, voided or not."""
        ...

    def list_trades(self, *, symbol: str | None = None, open_only: bool = False) -> list[Trade]:
        """Return trades that are not voided, oldest first."""
        ...

    def list_hit_rates(self) -> list[HitRate]:
        """Return what is known of every context, as of now."""
        ...

    def find_hit_rate(self, context_key: str) -> HitRate | None:
        """Return what is known of a context, as of now; None before its first trade."""
        ...

    def count_closed(self) -> int:
        """Return how many trades are closed and count."""
        ...

    def last_trade_at(self, symbol: str) -> datetime | None:
        """Return when a symbol was last traded, for its cooldown."""
        ...


class PostgresTradeLog:
    """Keep trades in the table `trades` of the store.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def record_trade(self, trade: NewTrade) -> Trade:
        """Write down a decided trade, open and without a fill."""
        stored = self._read(self.gateway.insert("trades", [trade.to_dict()]))
        self._refresh_after_commit()
        return stored

    def record_entry(self, entry: TradeEntry) -> Trade:
        """Set what the broker filled of an open trade so far."""
        values: Row = {"qty": entry.qty, "fill_price": entry.fill_price, "commission": entry.commission}
        if entry.order_id is not None:
            values["order_id"] = entry.order_id
        conditions = {"client_order_id": entry.client_order_id, "hit": ("is", None), "voided": ("is", False)}
        return self._read(self.gateway.update("trades", values, where=conditions), f"open trade of {entry.client_order_id}")

    def close_trade(self, outcome: TradeExit) -> Trade:
        """Close a trade and compute its outcome; the same outcome again changes nothing."""
        self.get_trade(outcome.trade_id)
        rows = self.gateway.rpc("close_trade", payload=outcome.to_dict())
        self._refresh_after_commit()
        return self._read(rows)

    def void_trade(self, trade_id: str) -> Trade:
        """Take a trade out of every statistic; its row stays."""
        where = {"trade_id": check_uuid("trade_id", trade_id)}
        stored = self._read(self.gateway.update("trades", {"voided": True}, where=where), f"trade {trade_id}")
        self._refresh_after_commit()
        return stored

    def get_trade(self, trade_id: str) -> Trade:
        """Return one trade, voided or not."""
        where = {"trade_id": check_uuid("trade_id", trade_id)}
        return self._read(self.gateway.select("trades", where=where), f"trade {trade_id}")

    def list_trades(self, *, symbol: str | None = None, open_only: bool = False) -> list[Trade]:
        """Return trades that are not voided, oldest first."""
        conditions: Row = {"voided": ("is", False)}
        if symbol is not None:
            conditions["symbol"] = symbol
        if open_only:
            conditions["hit"] = ("is", None)
        rows = self.gateway.select("trades", where=conditions, order=("recorded_at", "trade_id"))
        return [read_message(Trade, row) for row in rows]

    def list_hit_rates(self) -> list[HitRate]:
        """Return what is known of every context, as of now."""
        rates = [read_message(HitRate, row) for row in self.gateway.rpc("get_trade_hit_rates")]
        return sorted(rates, key=lambda rate: rate.context_key)

    def find_hit_rate(self, context_key: str) -> HitRate | None:
        """Return what is known of a context, as of now; None before its first trade."""
        rows = self.gateway.rpc("get_trade_hit_rates", p_context_key=context_key)
        return read_message(HitRate, rows[0]) if rows else None

    def count_closed(self) -> int:
        """Return how many trades are closed and count."""
        return int(self.gateway.rpc("get_performance_stats")[0]["closed_trades"])

    def last_trade_at(self, symbol: str) -> datetime | None:
        """Return when a symbol was last traded, for its cooldown."""
        conditions = {"symbol": symbol, "voided": ("is", False)}
        rows = self.gateway.select("trades", where=conditions, order=("-recorded_at",), limit=1)
        return read_message(Trade, rows[0]).recorded_at if rows else None

    def refresh_hit_rates(self) -> None:
        """Bring the materialised view up to date, unless somebody else is at it, who will then look again."""
        while self.gateway.rpc("refresh_trade_hit_rates")[0]["refresh_trade_hit_rates"]:
            pass

    def _refresh_after_commit(self) -> None:
        # The trade is committed, and readers count changed contexts afresh: a refresh that fails now is made up by the next.
        try:
            self.refresh_hit_rates()
        except StoreError as error:
            _log.warning("trade_hit_rates was not refreshed and will be with the next trade: %s", error)

    def _read(self, rows: list[Row], wanted: str = "trade") -> Trade:
        if not rows:
            raise MissingDataError(f"there is no {wanted}.")
        return read_message(Trade, rows[0])


def check_closable(trade: Trade, outcome: TradeExit) -> bool:
    """Return whether a trade is still to be closed; false when it was, with this outcome.

    Raises
    ------
    StoreConflictError
        If it was closed with another outcome, is voided, or has no fill.
    """
    if trade.hit is not None:
        before = (trade.exit_price, trade.exit_reason, trade.closed_at)
        if before != (outcome.exit_price, outcome.exit_reason, outcome.closed_at):
            raise StoreConflictError(
                f"trade_id {trade.trade_id} was closed at {trade.exit_price} on {trade.closed_at}: an outcome is written once"
            )
        return False
    if trade.voided or trade.fill_price is None:
        raise StoreConflictError(f"trade_id {trade.trade_id} cannot be closed: it is voided or has no fill")
    return True
