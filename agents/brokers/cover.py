"""Whether what an entry bought still needs exits: brokers of real markets end them when they feel like it."""

from __future__ import annotations

from collections.abc import Iterable

from agents.brokers.broker import BrokerOrder, BrokerPosition, Leg, exit_ids
from core.types import Side


def is_uncovered(entry: BrokerOrder, positions: Iterable[BrokerPosition], open_orders: Iterable[BrokerOrder]) -> bool:
    """Whether all that an entry filled is held, and no open order would take it away again.

    Exits for shares that were sold meanwhile, or that another order is selling, would open a position the other way round.

    Parameters
    ----------
    entry : BrokerOrder
    positions : iterable of BrokerPosition
    open_orders : iterable of BrokerOrder
        Of all symbols; of a pair of exits one counts, since the other ends with it.

    Returns
    -------
    bool
    """
    sign = 1.0 if entry.side is Side.BUY else -1.0
    held = sign * sum(one.qty for one in positions if one.symbol == entry.symbol)
    leaving = {one.client_order_id: one for one in open_orders if one.symbol == entry.symbol and one.side is not entry.side}
    targets, stops = exit_ids("")[Leg.TAKE_PROFIT], exit_ids("")[Leg.STOP_LOSS]
    promised = sum(
        one.qty - one.filled_qty
        for name, one in leaving.items()
        if not (name.endswith(stops) and name.removesuffix(stops) + targets in leaving)
    )
    return entry.filled_qty > 0.0 and held - promised >= entry.filled_qty
