"""`aqf features`: what features there are, what the language can say, and what a feature tells about later returns."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aqf.catalogue import Entry, Found
    from core.market import Panel
    from core.store import Store
    from core.store.records import Dataset
    from features.contract import ContractCheck
    from features.leaks import Leak, LeakReport
    from features.plugins import PluginFeature
    from features.study_result import FeatureStudy

_FORMULA = re.compile(r"-[^-]")


class FormulaCommand(click.Command):
    """A command whose argument may begin with a minus: `-pct_change(close, 5)` is a formula, not a row of options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put formulas behind `--`, where click leaves them alone."""
        if "--" not in args:
            formulas = [arg for arg in args if _FORMULA.match(arg) and arg != "-h"]
            if formulas:
                args = [*(arg for arg in args if arg not in formulas), "--", *formulas]
        return super().parse_args(ctx, args)


on_dataset = click.option(
    "--dataset", default="sp500_20", show_default=True, help="Data set of the store, or one that ships with a package."
)


@click.group()
def features() -> None:
    """List features, explain one, and measure what it tells about later returns.

    A feature is named, `reversal_5`, or written, "-ts_mean(returns, 5) / ts_std(returns, 21)". Plugin features, written in
    Python, come from installed packages (entry points `aqf.features`) and use cases, and are named too.
    """


@features.command(name="list", epilog="Example:  aqf features list --dataset sp500_20 --family momentum")
@click.option("--dataset", default=None, help="Only what this data set has the columns for.")
@click.option("--family", default=None, help="Only this family.")
@as_json
def list_command(dataset: str | None, family: str | None, as_json: bool) -> None:
    """List known hypotheses, plugin features and the features of the registry, with what became of them."""
    from aqf.catalogue import check_family, list_entries, load_plugins
    from core.settings import Settings
    from core.store import open_store

    have = None
    with screen.working("opening the store", quiet=as_json), open_store(Settings.load()) as store:
        entries = list_entries(store.service.list_features(), load_plugins())
        if dataset is not None:
            from core.store.packaged import ensure_dataset

            have = set(ensure_dataset(store, dataset).fields)
    if family is not None:
        check_family(family, entries)
    shown = [entry for entry in entries if family in (None, entry.family) and (have is None or entry.needs <= have)]
    if as_json:
        screen.print_json([_entry_to_dict(entry) for entry in shown])
        return
    rows = [(entry.name, entry.family, entry.status, entry.expression, entry.hypothesis) for entry in shown]
    title = f"{len(shown)} features" + ("" if dataset is None else f" that {dataset} has the columns for")
    screen.print_table(title, ("name", "family", "status", "expression", "hypothesis"), rows)


@features.command(epilog="Example:  aqf features operators")
@as_json
def operators(as_json: bool) -> None:
    """Show the language: every field, operator and indicator an expression may use."""
    from features.fields import FAMILIES, FIELDS
    from features.operators import OPERATORS
    from features.technical import INDICATORS

    tables = {
        "fields": [{"write": field.name, "meaning": field.doc} for field in FIELDS.values()]
        + [{"write": family.usage, "meaning": family.doc} for family in FAMILIES.values()],
        "operators": [{"write": operator.usage, "meaning": operator.doc} for operator in OPERATORS.values()],
        "indicators": [
            {"write": indicator.usage, "meaning": indicator.doc, "is": indicator.body} for indicator in INDICATORS.values()
        ],
    }
    if as_json:
        screen.print_json(tables)
        return
    for title, rows in tables.items():
        screen.print_table(f"{len(rows)} {title}", tuple(rows[0]), [tuple(row.values()) for row in rows])
    click.echo("Only positive lags exist. `aqf features explain EXPRESSION` says what an expression computes.")


@features.command(
    cls=FormulaCommand, epilog='Example:  aqf features explain "rank(ts_mean(returns, 20) / ts_std(returns, 60))"'
)
@click.argument("expression")
@as_json
def explain(expression: str, as_json: bool) -> None:
    """Say in words what EXPRESSION, or a known hypothesis by its name, computes, and draw its tree.

    Of a plugin it says what the plugin declares.
    """
    from aqf.catalogue import find_feature
    from features.explanation import explain
    from features.expression import Expression

    found = find_feature(expression)
    source = found.feature.source
    if not isinstance(source, Expression):
        _explain_plugin(found, source, as_json)
        return
    explanation = explain(source)
    if as_json:
        screen.print_json(explanation.to_dict() | {"name": None if found.entry is None else found.entry.name})
        return
    _print_head(found)
    click.echo(str(explanation))


@features.command(cls=FormulaCommand, epilog="Example:  aqf features show reversal_5 --dataset sp500_20 --out study/")
@click.argument("feature")
@on_dataset
@click.option("--quantiles", type=click.IntRange(2), default=5, show_default=True, help="Parts of the symbols of a bar.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pictures and the page; one under AQF_HOME by default.",
)
@as_json
def show(feature: str, dataset: str, quantiles: int, out: Path | None, as_json: bool) -> None:
    """Measure FEATURE, a name or an expression, on the bars before the seal: rank IC and its decay, quantiles, persistence."""
    from aqf.catalogue import find_feature
    from core.settings import Settings
    from core.store import open_store

    settings = Settings.load()
    with screen.working(f"loading {dataset}", quiet=as_json), open_store(settings) as store:
        found = find_feature(feature, store.service.list_features())
        stored, panel = load_before_seal(store, dataset)
    from features.expression import Expression
    from features.study import study

    source = found.feature.source
    with screen.working(f"measuring over {panel.n_bars:,} bars and 20 horizons, then drawing", quiet=as_json):
        measured = study(
            source if isinstance(source, Expression) else found.feature.compute(panel),
            panel,
            n_quantiles=quantiles,
            sealed_from=stored.sealed_from,
            title=found.title,
            hypothesis="" if found.entry is None else found.entry.hypothesis,
        )
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{dataset}-{found.title}")[:60]
        folder = out or settings.home / "studies" / f"{name}-{found.feature.sha256[:8]}"
        files = [str(path) for path in measured.save(folder)]
    status = None if found.entry is None else found.entry.status
    if as_json:
        feature_of = {
            "expression": found.feature.canonical,
            "expression_sha256": found.feature.sha256,
            "lookback": found.feature.lookback,
            "tree": None if measured.explanation is None else measured.explanation.tree,
        }
        screen.print_json(measured.to_dict() | feature_of | {"status": status, "files": files})
        return
    _print_head(found)
    _print_study(measured)
    click.echo(f"Page: {files[-1]}, with {len(files) - 1} pictures beside it")


@features.command(cls=FormulaCommand, epilog='Example:  aqf features check "close / delay(close, 5) - 1" --dataset sp500_20')
@click.argument("feature")
@on_dataset
@click.option("--cuts", type=click.IntRange(1, 1_000), help="Places where the data are cut for an expression, 8 by default.")
@as_json
def check(feature: str, dataset: str, cuts: int | None, as_json: bool) -> None:
    """Test whether FEATURE, a name or an expression, knows the future, and whether a plugin keeps its whole contract.

    Exit code 1 if it does not pass, or has no value that could be tested.
    """
    from aqf.catalogue import find_feature
    from core.settings import Settings
    from core.store import open_store
    from features.contract import check_feature
    from features.expression import Expression
    from features.leaks import check_leaks

    with screen.working(f"loading {dataset}", quiet=as_json), open_store(Settings.load()) as store:
        found = find_feature(feature, store.service.list_features())
        _, panel = load_before_seal(store, dataset)
    source = found.feature.source
    clauses: tuple[ContractCheck, ...] = ()
    leaks: LeakReport | None
    with screen.working("recomputing with the future cut off and altered", quiet=as_json):
        if isinstance(source, Expression):
            leaks = check_leaks(source, panel, n_cuts=cuts)
            passed, summary = leaks.passed and leaks.n_values > 0, leaks.summary()
        elif cuts is not None:
            raise click.UsageError(f"`--cuts` is for expressions; the contract of the plugin {source.name} has its own cuts.")
        else:
            found.feature.check_inputs(panel)
            report = check_feature(source, panel)
            leaks, clauses, passed, summary = report.leaks, report.checks, report.passed, report.summary()
    if as_json:
        screen.print_json(
            {
                "expression": found.feature.canonical,
                "passed": passed,
                "n_checks": 0 if leaks is None else leaks.n_checks,
                "summary": summary,
                "leaks": [] if leaks is None else [_leak_to_dict(leak) for leak in leaks.leaks],
                "checks": [asdict(clause) for clause in clauses],
            }
        )
    elif isinstance(source, Expression):
        click.echo(f"{found.title}: {summary}")
    else:
        click.echo(f"{found.title} {'keeps' if passed else 'breaks'} its contract on {dataset}")
        for clause in clauses:
            click.echo(f"  {'kept' if clause.passed else 'BROKEN':6}  {clause.name}: {clause.detail}")
    if not passed:
        raise click.exceptions.Exit(1)


@features.command(cls=FormulaCommand, epilog="Example:  aqf features snapshot reversal_5 --dataset sp500_20")
@click.argument("feature")
@on_dataset
@as_json
def snapshot(feature: str, dataset: str, as_json: bool) -> None:
    """Keep the values of FEATURE, a name or an expression, on the bars before the seal, and print their address."""
    from aqf.catalogue import find_feature
    from core.settings import Settings
    from core.store import open_store
    from features.snapshots import load_snapshot, save_snapshot

    with screen.working(f"computing on {dataset}", quiet=as_json), open_store(Settings.load()) as store:
        found = find_feature(feature, store.service.list_features())
        _, panel = load_before_seal(store, dataset)
        saved = save_snapshot(found.feature, panel, store.artifacts)
        load_snapshot(saved, store.artifacts, expression=found.feature, panel=panel)
    if as_json:
        screen.print_json(saved.to_dict())
        return
    click.echo(f"{saved.uri}\n  {saved.expression}")
    click.echo(
        f"  {saved.n_bars:,} bars x {len(saved.symbols)} symbols of {saved.dataset} ({saved.dataset_sha256[:12]}), "
        f"computed by {saved.code_version}, read back and checked"
    )


def load_before_seal(store: Store, name: str) -> tuple[Dataset, Panel]:
    """Load what a researcher may see: the bars before the seal."""
    from core.store.packaged import ensure_dataset

    dataset = ensure_dataset(store, name)
    return dataset, store.researcher.load_panel(dataset)


def _entry_to_dict(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "family": entry.family,
        "kind": entry.kind,
        "expression": entry.expression,
        "expression_sha256": entry.sha256,
        "hypothesis": entry.hypothesis,
        "source": entry.source,
        "status": entry.status,
        "reason": entry.reason,
        "needs": sorted(entry.needs),
    }


def _print_head(found: Found) -> None:
    if found.entry is not None:
        reason = "" if found.entry.reason is None else f", {found.entry.reason}"
        click.echo(f"{found.entry.name} ({found.entry.family}, {found.entry.status}{reason}): {found.entry.hypothesis}")
    click.echo(f"{found.feature.canonical}\n")


def _explain_plugin(found: Found, plugin: PluginFeature, as_json: bool) -> None:
    described = {
        "name": plugin.name,
        "version": plugin.version,
        "hypothesis": plugin.hypothesis,
        "lookback": plugin.lookback,
        "columns": sorted(plugin.columns),
        "event_kinds": sorted(plugin.event_kinds),
        "expression": found.feature.canonical,
        "expression_sha256": found.feature.sha256,
    }
    if as_json:
        screen.print_json(described)
        return
    _print_head(found)
    history = "all of history" if plugin.lookback is None else f"{plugin.lookback} bars before the current one"
    reads = ", ".join([*sorted(plugin.columns), *(f"events of kind {kind}" for kind in sorted(plugin.event_kinds))])
    click.echo(f"A plugin, written in Python: it reads {reads or 'no column'}, and needs {history}.")
    click.echo(f"`aqf features check {plugin.name}` tests whether it keeps to that.")


def _leak_to_dict(leak: Leak) -> dict[str, Any]:
    return {"bar": leak.bar, "ts": leak.timestamp.isoformat(), "symbol": leak.symbol, "cut": leak.cut, "change": leak.change}


def _print_study(study: FeatureStudy) -> None:
    from features.page import show_figure, show_significant

    def bps(value: float | None) -> str:
        return show_figure(None if value is None else 1e4 * value, 1)

    def line(what: str, values: Sequence[float | None], shown: Sequence[int]) -> str:
        return f"  {what}: " + ", ".join(f"{show_figure(values[lag - 1], 2)} at {lag}" for lag in shown)

    if study.explanation is not None:
        click.echo(f"{study.explanation}\n")
    click.echo(study.sample)
    for caveat in study.caveats:
        click.echo(f"  ! {caveat}")
    n = study.n_quantiles
    places = range(n) if n <= 5 else (0, n // 2, n - 1)  # what fits on a screen of 80 columns; the page has them all
    heads = ("held", "rank IC", "t", "bars", *(f"Q{place + 1}" for place in places), "all")
    rows = [
        (
            row.horizon,
            show_figure(row.rank_ic, 4, sign=True),
            show_figure(row.rank_ic_t, 1),
            f"{row.n_bars:,}",
            *(bps(row.quantile_returns[place]) for place in places),
            bps(row.all_returns),
        )
        for row in study.horizons
    ]
    click.echo("\nRank IC by bars held; Q1 (the lowest values) and up: mean forward return, basis points a bar")
    screen.print_table("", heads, rows, right=heads)
    figures = [(row.name, show_significant(row.pooled), show_significant(row.per_bar)) for row in study.distribution]
    click.echo("Values")
    screen.print_table("", ("statistic", "all values", "within a bar"), figures, right=("all values", "within a bar"))
    years = [(row.year, show_figure(row.rank_ic, 4, sign=True), row.n_bars) for row in study.years]
    click.echo("Rank IC by year, over the shortest horizon")
    screen.print_table("", ("year", "rank IC", "bars"), years, right=("rank IC", "bars"))
    click.echo(f"  coverage: {show_figure(100.0 * study.coverage, 1)} % of the symbols and bars with a price")
    click.echo(line("rank autocorrelation", study.autocorrelation, (1, 5, 10, 20)))
    whole = "2 replaces every position" if study.direction == "across symbols" else "of a position from -1 to 1"
    click.echo(f"  turnover: {show_figure(study.turnover, 2)} a bar ({whole})")
