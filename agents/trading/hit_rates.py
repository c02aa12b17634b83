"""The trade log as Pythia reads it: what the closed trades say, asked for once and kept until one more is closed."""

from __future__ import annotations

from core.store.gateway import Gateway
from core.store.trade_log import PostgresTradeLog
from core.store.trading_records import HitRate


class RememberingTradeLog(PostgresTradeLog):
    """A trade log that answers from memory what only a closing changes; `forget` after each.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.
    """

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._rates: dict[str, HitRate] | None = None
        self._n_closed: int | None = None

    def forget(self) -> None:
        """Ask again at the next question."""
        self._rates = self._n_closed = None

    def find_hit_rate(self, context_key: str) -> HitRate | None:
        """Return what is known of a context as of the last closing."""
        if self._rates is None:
            self._rates = {rate.context_key: rate for rate in self.list_hit_rates()}
        return self._rates.get(context_key)

    def count_closed(self) -> int:
        """Return how many trades are closed and count."""
        if self._n_closed is None:
            self._n_closed = super().count_closed()
        return self._n_closed
