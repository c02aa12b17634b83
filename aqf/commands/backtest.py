"""`aqf backtest`: one feature, one trial, one report."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.features import FormulaCommand
from aqf.commands.research import as_json, out_folder

if TYPE_CHECKING:
    from agents.research.single import SingleBacktest


@click.command(
    cls=FormulaCommand, epilog='Example:  aqf backtest "-ts_sum(returns, 5)" --dataset sp500_20 --holding 5 --out report/'
)
@click.argument("feature", metavar="NAME|EXPRESSION")
@click.option(
    "--dataset", default="sp500_20", show_default=True, help="Data set of the store, or one that ships with a package."
)
@click.option("--symbols", default="", help="Part of the data set, separated by commas.")
@click.option(
    "--holding",
    type=click.IntRange(1, 1_000),
    help="Bars each target is held; chosen walk-forward from 1, 2, 5, 10 and 21 if not given.",
)
@click.option("--fill", type=click.Choice(["close", "open"]), help="Price of the next bar that orders are filled at.  [close]")
@click.option("--commission-bps", type=click.FloatRange(0, 1_000), help="Commission, basis points of the traded value.  [1]")
@click.option("--slippage-bps", type=click.FloatRange(0, 1_000), help="Half-spread and impact, basis points.  [4]")
@click.option("--borrow-rate", type=click.FloatRange(0, 10), help="Yearly fee on what is sold short, a fraction.  [0.005]")
@click.option("--cash", "initial_cash", type=click.FloatRange(0, min_open=True), help="Equity at the beginning.  [1000000]")
@out_folder
@as_json
def backtest(
    feature: str,
    dataset: str,
    symbols: str,
    holding: int | None,
    fill: str | None,
    commission_bps: float | None,
    slippage_bps: float | None,
    borrow_rate: float | None,
    initial_cash: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Backtest one feature, by its NAME or as an EXPRESSION, and write the report.

    It is a trial like any other: a row in the ledger that cannot be taken back, on the bars before the seal, and from then on
    every Sharpe ratio on this data is held against one trial more.
    """
    with ExitStack() as stack:
        with screen.Progress(quiet=as_json, lines=True) as progress:
            from agents import ResearchContext
            from agents.research.single import run_single_backtest
            from aqf.catalogue import find_feature
            from backtest.config import BacktestConfig

            given = {
                "fill": fill,
                "commission_bps": commission_bps,
                "slippage_bps": slippage_bps,
                "borrow_rate": borrow_rate,
                "initial_cash": initial_cash,
            }
            config = BacktestConfig(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
            context = stack.enter_context(ResearchContext.from_settings())
            progress.say(f"  backtesting on {dataset}")
            found = find_feature(feature, context.store.service.list_features())
            single = run_single_backtest(
                found.feature,
                context=context,
                name=found.title,
                dataset=dataset,
                symbols=tuple(symbol.strip() for symbol in symbols.split(",") if symbol.strip()),
                holding_bars=holding,
                config=config,
            )
        page = single.page if out is None else single.report.save(out)
    if as_json:
        screen.print_json({**single.to_dict(), "report": str(page)})
    else:
        _show(single, page)


def _show(single: SingleBacktest, page: Path) -> None:
    from backtest.definitions import DEFINITIONS, GROUPS

    report = single.report
    rows = [
        (group, DEFINITIONS[key].label, DEFINITIONS[key].show(value))
        for group, keys in GROUPS
        for key in keys
        if (value := report.figures[key]) is not None
    ]
    shown = [(group if place == 0 or rows[place - 1][0] != group else "", *rest) for place, (group, *rest) in enumerate(rows)]
    screen.print_table(report.title, ("", "figure", "value"), shown, right=("value",))
    click.echo(f"  expression: {single.expression}")
    for note in (*report.notes, *report.caveats):
        click.echo(f"  {note}")
    click.echo(f"\nEvidence: {report.evidence}.")
    click.echo(f"Report: {page}")
