"""Does momentum, net of costs, survive in twenty large US stocks?

Run it with ``python -m use_cases.equity_momentum.pipeline``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import click

from agents.research.request import Budget, Candidate
from core.errors import AQFError
from core.store.packaged import ensure_dataset
from core.store.records import Dataset
from features.labels import forward_returns
from use_cases.base import StrategyUseCase

if TYPE_CHECKING:
    from agents.research.runner import ResearchContext

LABEL_HORIZON = 21


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


@click.command(epilog="Example:  python -m use_cases.equity_momentum.pipeline --trials 40")
@click.option("--trials", type=click.IntRange(1), default=48, show_default=True, help="Backtests the run may make.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--planner", type=click.Choice(["auto", "rules", "llm"]), default="auto", show_default=True)
@click.option("--dataset", default="sp500_20", show_default=True)
def main(trials: int, seed: int, planner: Literal["auto", "rules", "llm"], dataset: str) -> None:
    """Ingest, label, compute the features of equity momentum and send its question through the planner."""
    try:
        _run(trials, seed, planner, dataset)
    except AQFError as error:
        raise click.ClickException(str(error)) from error


def _run(trials: int, seed: int, planner: Literal["auto", "rules", "llm"], dataset: str) -> None:
    from agents.research.runner import ResearchContext

    with ResearchContext.from_settings() as context:
        case = EquityMomentum(dataset)
        stored = case.ingest(context)
        click.echo(
            f"ingested {stored.name}: {stored.n_bars} bars x {len(stored.symbols)} symbols, "
            f"sealed from {stored.sealed_from:%Y-%m-%d}"
        )
        click.echo(f"labelled {case.label(context, stored)} months with the return of the next {LABEL_HORIZON} bars")
        values = case.compute_features(context.store.researcher.load_panel(stored))
        click.echo(f"computed {', '.join(values)}")
        report = case.run(
            context,
            budget=Budget(trials=trials),
            planner=planner,
            seed=seed,
            on_event=lambda event: click.echo(f"  {event.message}", err=True),
        )
    click.echo(report.to_markdown())


if __name__ == "__main__":
    main()
