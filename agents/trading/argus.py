"""Argus (portfolio): what the account is worth, computed from fills and prices, and whether it may go on trading.

Hides how fills, money and prices become a book. Promises that the equity is never an assumption (one unknown price makes it
unknown, and unknown equity admits no order), that the drawdown which ends trading is taken on that equity, of which money
paid in or out makes neither a peak nor a fall, and that a halt is in the store, where every process sees it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from agents.brokers.broker import Order
from agents.trading.limits import BookView
from agents.trading.market_data import MarketData
from agents.trading.milestones import Milestones, StageRules
from core.errors import ConfigurationError, DataError
from core.store.decisions import ALL, DecisionLog, Halt, OpenOrder
from core.store.trading import TradingStore
from core.store.trading_records import Book, Position, Trade
from core.types import Side

_log = logging.getLogger(__name__)

ACTOR = "argus"
_DUST = 1e-9


@dataclass(frozen=True, kw_only=True)
class ArgusConfig:
    """How the book is valued.

    Parameters
    ----------
    max_price_age_hours : float, default=100
        A position whose last price is older has no price; a long week-end is 89 hours.
    currency : str, default="USD"
        Of the account; a position priced in another has no price.
    """

    max_price_age_hours: float = 100.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        if self.max_price_age_hours <= 0.0:
            raise ConfigurationError(f"`max_price_age_hours` must be above 0, was {self.max_price_age_hours!r}.")


@dataclass(frozen=True, kw_only=True)
class Valuation:
    """The account at one time, in its currency.

    Parameters
    ----------
    equity : float, optional
        Cash and positions at their last prices; None while a price is unknown, or the cash that all began with.
    cash : float
    positions : float
        Value of the positions whose price is known.
    unpriced : tuple of str
        Symbols held whose price nobody knows.
    drawdown : float, optional
        Fraction that a unit of the account lost from its peak; from the peak since trading was resumed, if it ever was halted
        as a whole. Money that is paid in or out buys or sells units.
    """

    equity: float | None
    cash: float
    positions: float
    unpriced: tuple[str, ...] = ()
    drawdown: float | None = None


@dataclass(kw_only=True)
class _Loaded:
    cash: float = 0.0
    moved: float = 0.0
    is_opened: bool = False
    held: dict[str, float] = field(default_factory=dict)
    orders: list[OpenOrder] = field(default_factory=list)  # those that a decision led to
    trades: list[Trade] = field(default_factory=list)
    last_trades: dict[str, datetime] = field(default_factory=dict)


class Argus:
    """Value the book and stop trading when it falls too far.

    Parameters
    ----------
    store : TradingStore
    log : DecisionLog
    milestones : Milestones
        Which stage the equity is at, and what the vault holds.
    data : MarketData
    sectors : mapping of str to str
        Sector by symbol.
    config : ArgusConfig
    cooldown : timedelta
        How far back the limits need to know what was traded.
    """

    def __init__(
        self,
        store: TradingStore,
        log: DecisionLog,
        milestones: Milestones,
        data: MarketData,
        sectors: Mapping[str, str],
        config: ArgusConfig,
        cooldown: timedelta,
    ) -> None:
        self.store = store
        self.log = log
        self.milestones = milestones
        self.data = data
        self.sectors = sectors
        self.config = config
        self.cooldown = cooldown
        self.valuation: Valuation | None = None
        self._book = _Loaded()
        self._saved: tuple[float, float, int] | None = None
        self._was_unknown = False

    # The book

    def reload(self, now: datetime) -> None:
        """Read the book as the store has it."""
        lines = self.log.list_ledger()
        moved = self.log.cash_movements()
        book = _Loaded(
            cash=(moved or 0.0) + sum(line.cash for line in lines),
            moved=moved or 0.0,
            is_opened=moved is not None,
            held={line.symbol: line.qty for line in lines if abs(line.qty) > _DUST},
            orders=self.log.list_open_orders(decided_only=True),
            last_trades=self.log.last_trades(now - self.cooldown),
        )
        book.trades = self.store.trades.list_trades(open_only=True) if book.held else []
        self._book = book

    def reload_orders(self, now: datetime) -> None:
        """Read which orders are open and what was last traded, where no fill can have changed anything else."""
        self._book.orders = self.log.list_open_orders(decided_only=True)
        self._book.last_trades = self.log.last_trades(now - self.cooldown)

    @property
    def held(self) -> Mapping[str, float]:
        """Shares by symbol."""
        return self._book.held

    @property
    def closing(self) -> frozenset[str]:
        """Symbols of which a sale is under way that a decision ordered."""
        return frozenset(order.symbol for order in self._book.orders if order.side is Side.SELL)

    def mark(self, now: datetime) -> Valuation:
        """Value the book at the last prices, keep it, and halt trading when the drawdown reaches the stage's limit.

        Raises
        ------
        StoreError
            If the figures cannot be written down.
        """
        prices = {symbol: self._price(symbol, now) for symbol in self._book.held}
        unpriced = tuple(sorted(symbol for symbol, price in prices.items() if price is None))
        value = sum(qty * (prices[symbol] or 0.0) for symbol, qty in self._book.held.items())
        cash = self._book.cash
        if unpriced or not self._book.is_opened:
            if not self._was_unknown:
                reason = f"no price of {', '.join(unpriced)}" if unpriced else "no broker ever told the cash"
                _log.error("equity is unknown, nothing new is traded: %s", reason)
            self._was_unknown = True
            self.valuation = Valuation(equity=None, cash=cash, positions=value, unpriced=unpriced)
            return self.valuation
        self._was_unknown = False
        equity = max(0.0, cash + value)
        drawdown = self._keep(equity, cash, prices, now)
        self.valuation = Valuation(equity=equity, cash=cash, positions=value, drawdown=drawdown)
        return self.valuation

    def _keep(self, equity: float, cash: float, prices: Mapping[str, float | None], now: datetime) -> float | None:
        figures = (equity, cash, len(prices))
        if figures == self._saved or (self._saved is None and equity <= 0.0):
            return None if self.valuation is None else self.valuation.drawdown
        positions = tuple(self._position(symbol, price) for symbol, price in sorted(prices.items()) if price is not None)
        book = Book(recorded_at=now, equity=equity, cash=cash, moved=self._book.moved, positions=positions)
        state = self.store.save_portfolio(book)
        self._saved = figures
        self.milestones.observe(equity)
        resumed_at = next((halt.resumed_at for halt in self.log.list_halts() if halt.scope == ALL), None)
        peak = state.peak_equity
        if resumed_at is not None:
            peak = max(state.equity, (self.log.peak_since(resumed_at) or 0.0) * state.units) or peak
        drawdown = (peak - state.equity) / peak
        limit = self.milestones.rules(equity).kill_drawdown
        if drawdown >= limit:
            reason = f"equity {equity:.2f} is {drawdown:.2%} below its peak {peak:.2f}: the stage's limit is {limit:.0%}"
            self.halt(ALL, reason=reason, actor=ACTOR, now=now)
        return drawdown

    def _position(self, symbol: str, price: float) -> Position:
        qty = self._book.held[symbol]
        mine = [trade for trade in self._book.trades if trade.symbol == symbol and trade.fill_price is not None]
        shares = sum(trade.qty for trade in mine)
        cost = sum(trade.qty * (trade.fill_price or 0.0) for trade in mine) / shares if shares else price
        last = mine[-1] if mine else None
        return Position(
            symbol=symbol,
            qty=qty,
            avg_cost=cost,
            stop_loss=None if last is None else last.stop_loss,
            take_profit=None if last is None else last.take_profit,
            unrealized_pnl=qty * (price - cost),
        )

    def _price(self, symbol: str, now: datetime) -> float | None:
        try:
            quote = self.data.get_quote(symbol, now)
        except DataError:
            return None
        if quote is None or quote.currency != self.config.currency:
            return None
        fresh = timedelta(0) <= now - quote.at <= timedelta(hours=self.config.max_price_age_hours)
        return quote.price if fresh else None

    # What the limits may know

    def equity(self) -> float | None:
        """Return what may be sized on, without the vault; None while nobody knows what the account is worth."""
        known = self.valuation
        return None if known is None or known.equity is None else self.milestones.sized_equity(known.equity)

    def view(self, candidates: Iterable[str] = ()) -> BookView:
        """Return the book as the limits see it, with entries that may still fill counted as filled.

        Parameters
        ----------
        candidates : iterable of str
            Symbols that may be traded; the view knows the sectors of these and of what is open.
        """
        known = self.valuation
        entries = {order.symbol: _open_value(order) for order in self._book.orders if order.side is Side.BUY}
        symbols = tuple(sorted({*self._book.held, *entries}))
        vault = 0.0 if self.milestones.state is None else self.milestones.state.vault_balance
        scopes = {halt.scope for halt in self.halts()}
        return BookView(
            equity=self.equity(),
            cash=self._book.cash - vault - sum(entries.values()),
            deployed=max(0.0, (0.0 if known is None else known.positions) + sum(entries.values())),
            open_symbols=symbols,
            sectors={symbol: self.sectors[symbol] for symbol in (*symbols, *candidates) if symbol in self.sectors},
            last_trade_at=self._book.last_trades,
            halted=ALL in scopes,
            halted_symbols=tuple(sorted(scope.removeprefix("symbol:") for scope in scopes - {ALL})),
        )

    def rules(self) -> StageRules:
        """Return what the stage of the equity allows.

        While the equity is unknown, that of the smallest stage, with the tiers of all: no tier is blocked by a stage that
        nobody knows, and the limits refuse because the equity is unknown, which is what holds.
        """
        known = self.valuation
        if known is not None and known.equity is not None:
            return self.milestones.rules(known.equity)
        stages = self.milestones.config.stages
        return replace(stages[0], max_tier=max(rules.max_tier for rules in stages))

    def open_trades(self, symbol: str) -> list[Trade]:
        """Return the open trades of a symbol, oldest first."""
        return [trade for trade in self._book.trades if trade.symbol == symbol]

    # Halts

    def halts(self) -> list[Halt]:
        """Return the halts in force, whoever ordered them and in whichever process."""
        return [halt for halt in self.log.list_halts() if halt.resumed_at is None]

    def halt(self, scope: str, *, reason: str, actor: str, now: datetime) -> bool:
        """Halt trading, or a symbol; false when it was halted already."""
        new = self.log.halt(scope, reason=reason, actor=actor, at=now)
        if new:
            _log.error("halted %s: %s", scope, reason)
        return new

    def resume(self, scope: str, *, actor: str, now: datetime) -> bool:
        """Lift a halt; false when there was none. The drawdown counts from the peak since then."""
        self._saved = None
        return self.log.resume(scope, actor=actor, at=now)


def _open_value(order: OpenOrder) -> float:
    """Return what an entry may still cost; of one that is partly filled, too much rather than too little."""
    limit = Order.from_dict(order.payload["order"]).limit_price
    return order.qty * (limit or 0.0)
