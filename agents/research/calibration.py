"""Does the machinery tell an edge from none? Runs the whole planner on synthetic markets whose truth is known.

Each market is a data set of its own in the store, its trials are rows in the ledger like any others, and only its bars
are deleted afterwards. A run that broke off keeps them, so that it can be resumed.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any

from agents.research.report import ResearchReport
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, run_planner
from agents.research.session import EventHandler
from backtest import markets
from backtest.market_noise import MarketStyle
from backtest.markets import EdgeKind

QUESTION = "Which features predict the next returns of these stocks?"
_SYNTHETIC = "synthetic: the truth about this market is known, and it is not a real one"


@dataclass(frozen=True, kw_only=True)
class MarketVerdict:
    """What the planner said about one synthetic market.

    Parameters
    ----------
    edge : float or None
        Annual net Sharpe ratio that was planted; None for a market without an edge.
    style : {"plain", "realistic"}
        As in `backtest.markets.no_edge`.
    found : bool
        Whether anything was promoted.
    """

    seed: int
    edge: float | None
    kind: str | None
    style: MarketStyle
    found: bool
    promoted: tuple[str, ...]
    sentence: str
    best_dsr: float | None
    binding_constraint: str | None


def calibrate_market(
    context: ResearchContext,
    *,
    seed: int,
    edge: float | None,
    kind: EdgeKind = "reversal",
    n_bars: int = 3_000,
    n_assets: int = 20,
    trials: int = 78,
    style: MarketStyle = "plain",
    on_event: EventHandler | None = None,
) -> MarketVerdict:
    """Run the planner on one synthetic market.

    Parameters
    ----------
    seed : int
        Seed of the market and of the run.
    edge : float or None
        Annual net Sharpe ratio to plant; None plants nothing.
    style : {"plain", "realistic"}, default="plain"
        As in `backtest.markets.no_edge`.
    """
    if edge is None:
        panel = markets.no_edge(seed=seed, n_assets=n_assets, n_bars=n_bars, style=style)
    else:
        panel = markets.planted(seed=seed, sharpe=edge, kind=kind, n_assets=n_assets, n_bars=n_bars, style=style)
    what = "none" if edge is None else f"{kind}-{edge:g}"
    name = f"synthetic-{what}-{style}-{seed}-{uuid.uuid4().hex[:8]}"
    service = context.store.service
    dataset = service.import_dataset(panel, name=name, source="backtest.markets", synthetic=True, caveats=(_SYNTHETIC,))
    request = ResearchRequest(question=QUESTION, dataset=name, seed=seed, vectors=False)
    report: ResearchReport = run_planner(
        request, budget=Budget(trials=trials, steps=60), planner="rules", context=context, on_event=on_event
    )
    service.gateway.delete("market_bars", where={"dataset_id": dataset.dataset_id})
    best: Any = report.findings[0] if report.findings else None
    return MarketVerdict(
        seed=seed,
        edge=edge,
        kind=None if edge is None else kind,
        style=style,
        found=bool(report.promoted),
        promoted=tuple(finding.name for finding in report.promoted),
        sentence=report.sentence,
        best_dsr=None if best is None else best.metrics["dsr"],
        binding_constraint=None if best is None else best.binding_constraint,
    )


def wilson_interval(successes: int, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a share.

    References
    ----------
    .. [1] Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA, 22(158), 209-212.
    """
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
