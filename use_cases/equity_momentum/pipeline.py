"""Does momentum, net of costs, survive in twenty large US stocks?

Run it with ``python -m use_cases.equity_momentum.pipeline``, or with ``--mode trade`` through the trading agents.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from agents.research.request import Candidate
from core.market import load_dataset
from core.market.panel import Panel
from core.store.packaged import ensure_dataset, find_symbols
from core.store.records import Dataset
from core.types import RawSignal, Severity, SignalCategory
from features.labels import forward_returns
from use_cases.base import StrategyUseCase
from use_cases.command import build_command

if TYPE_CHECKING:
    from agents.research.runner import ResearchContext
    from core.store.opening import Store

LABEL_HORIZON = 21
N_LEADERS = 3
_FORMATION, _SKIPPED, _WEEK = 252, 21, 5
_NAMES = uuid5(NAMESPACE_URL, "aqf:use_cases/equity_momentum")


class EquityMomentum(StrategyUseCase):
    """Winners of the last year, the last month left out, keep winning (Jegadeesh & Titman 1993)."""

    name: ClassVar[str] = "equity_momentum"

    def __init__(self, dataset: str = "sp500_20") -> None:
        self._dataset = dataset

    def question(self) -> str:
        """Return what the use case wants to know."""
        return "Does cross-sectional momentum survive costs in these large US stocks?"

    def ingest(self, context: ResearchContext) -> Dataset:
        """Land the daily prices in the store, or find them there."""
        return ensure_dataset(context.store, self._dataset)

    def label(self, context: ResearchContext, dataset: Dataset) -> int:
        """Attach the return of the next month to the first bar of each month before the seal."""
        panel = context.store.researcher.load_panel(dataset)
        labels = forward_returns(panel, horizon=LABEL_HORIZON)
        months = panel.index.tz_localize(None).to_period("M")
        first_of_month = ~months.duplicated()
        values = labels.values.copy()
        values[~first_of_month] = float("nan")
        return context.store.service.save_labels(
            dataset, name=f"forward_return_{LABEL_HORIZON}", panel=panel, values=values, horizon_end=labels.horizon_end
        )

    def candidates(self) -> tuple[Candidate, ...]:
        """Return momentum as it is usually measured, and two ways to make it steadier."""
        return (
            Candidate(
                name="momentum_12_1",
                family="momentum",
                expression="delay(close, 21) / delay(close, 252) - 1",
                hypothesis="Winners of the last year, the last month left out, keep winning (Jegadeesh & Titman 1993).",
            ),
            Candidate(
                name="momentum_12_1_per_risk",
                family="momentum",
                expression="(delay(close, 21) / delay(close, 252) - 1) / ts_std(returns, 126)",
                hypothesis="A steady climb is worth more than a wild one (Barroso & Santa-Clara 2015).",
            ),
            Candidate(
                name="high_52_weeks",
                family="momentum",
                expression="close / ts_max(close, 252)",
                hypothesis="Stocks near their high of the year go on rising, an anchor of investors (George & Hwang 2004).",
            ),
        )

    def symbols(self, store: Store) -> tuple[str, ...]:
        """Return the stocks of its data set."""
        return find_symbols(store, self._dataset)

    def lookback(self) -> int:
        """Return the bars that the rankings of now and of a week before are formed on."""
        return _FORMATION + _WEEK

    def raw_signals(self, as_of: datetime, *, since: datetime | None = None, panel: Panel | None = None) -> list[RawSignal]:
        """Return, at the first bar of a week, the leaders by `momentum_12_1` and who fell out of the better half.

        Parameters
        ----------
        as_of : datetime
            The close of a bar; at any other time there is nothing new, UTC.
        since : datetime, optional
            Time of the bar before; a week begins where the two are of different ones. By default the bar before in `panel`.
        panel : Panel, optional
            Bars to rank on; by default the packaged data set, in which bars behind its seal lie, too.

        Returns
        -------
        list of RawSignal
            Leaders as positive news, best first; then those that were in the better half a week before and are not any more, in
            words that advise against holding them.
        """
        panel = load_dataset(self._dataset) if panel is None else panel
        place = int(panel.index.searchsorted(as_of))
        if place >= panel.n_bars or panel.index[place] != as_of or place == 0:
            return []
        before = panel.index[place - 1].to_pydatetime() if since is None else since
        if as_of.isocalendar()[:2] == before.isocalendar()[:2]:
            return []
        now, earlier = _rank(panel, place), _rank(panel, place - _WEEK)
        leaders = [symbol for symbol in list(now)[:N_LEADERS] if now[symbol] > 0.0]
        half = len(panel.symbols) // 2
        fallen = [symbol for symbol in list(earlier)[:half] if symbol not in list(now)[:half]]
        return [
            *(_tell(symbol, now[symbol], as_of, leads=True) for symbol in leaders),
            *(_tell(symbol, now.get(symbol, 0.0), as_of, leads=False) for symbol in fallen),
        ]


def _rank(panel: Panel, place: int) -> dict[str, float]:
    """Return the momentum at a bar by symbol, best first; symbols without a price are left out, equal ones keep their order."""
    if place < _FORMATION:
        return {}
    values = panel.close[place - _SKIPPED] / panel.close[place - _FORMATION] - 1.0
    order = [int(column) for column in np.argsort(-values, kind="stable") if np.isfinite(values[column])]
    return {panel.symbols[column]: float(values[column]) for column in order}


def _tell(symbol: str, momentum: float, as_of: datetime, *, leads: bool) -> RawSignal:
    words = "tops the ranking by momentum" if leads else "loses its place in the better half by momentum"
    return RawSignal(
        signal_id=str(uuid5(_NAMES, f"{as_of.isoformat()}|{symbol}|{leads}")),
        headline=f"{symbol} {words}: {momentum:+.1%} over eleven months",
        published_at=as_of,
        category=SignalCategory.POSITIVE_NEWS,
        severity=Severity.MEDIUM if leads else Severity.LOW,
        affected_tickers=(symbol,),
    )


main = build_command(
    EquityMomentum,
    EquityMomentum.name,
    "Ingest, label, compute the features of equity momentum and send its question on its way.",
)

if __name__ == "__main__":
    main()
