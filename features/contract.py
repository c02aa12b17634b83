"""The contract of a feature: what every expression and every plugin must keep, checked by computing it.

Hides the awkward data it is tried on. Promises that whatever a feature does or raises is a failed check with a reason, never
an error of the caller, as long as the caller's data have what the feature reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from core.errors import DataError, MissingDataError
from core.market.panel import BAR_FIELDS, Panel
from features.engine import compute
from features.expression import Expression, parse
from features.fields import FloatArray
from features.futures import FeatureInputs, lengthen, with_columns
from features.leaks import LeakReport, check_leaks, relative_changes
from features.plugins import FOREIGN_ERRORS, PluginFeature, check_description
from features.point_in_time import Events, check_symbols


@dataclass(frozen=True, kw_only=True)
class ContractCheck:
    """Say whether a feature keeps one clause.

    Parameters
    ----------
    name : str
        The clause.
    passed : bool
    detail : str
        What was seen.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class FeatureReport:
    """Say whether a feature keeps its contract.

    Parameters
    ----------
    feature : str
        Name of a plugin, text of an expression.
    checks : tuple of ContractCheck
        One a clause; those after a feature that could not be computed at all are left out.
    leaks : LeakReport or None
        The truncation test; None if it was not reached or the feature raised in it.
    """

    feature: str
    checks: tuple[ContractCheck, ...]
    leaks: LeakReport | None

    @property
    def passed(self) -> bool:
        """Whether every clause is kept."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[ContractCheck, ...]:
        """The clauses that are not kept."""
        return tuple(check for check in self.checks if not check.passed)

    def summary(self) -> str:
        """Say it in one sentence."""
        if self.passed:
            return f"{self.feature} keeps all {len(self.checks)} clauses of its contract"
        return f"{self.feature} breaks its contract: " + "; ".join(f"{check.name}: {check.detail}" for check in self.failures)


def check_feature(
    feature: str | Expression | PluginFeature, panel: Panel, *, events: Events | None = None, seed: int = 0
) -> FeatureReport:
    """Check that a feature keeps its contract on data like these.

    The clauses: ``shape_and_dtype`` (an ndarray of float64, one row a bar, one column a symbol), ``nan_policy`` (never
    infinite, and some value on data without gaps that are longer than the lookback), ``determinism`` (the same bits twice),
    ``no_hidden_state`` (the same bits after other data), ``inputs_unchanged``, ``lookback`` (as declared),
    ``one_asset``, ``missing_asset`` (a symbol without a bar, alone and among others), ``short_data`` (fewer bars than the
    lookback, and one bar), ``no_leak`` (:func:`check_leaks`).

    Parameters
    ----------
    feature : str, Expression, or PluginFeature
        What to check.
    panel : Panel
        At least three bars, with the columns that the feature reads; longer than its lookback, or that is not proved.
    events : Events, optional
        Required if the feature reads events, with every kind that it reads; others are left out.
    seed : int, default=0
        Seed of whatever is random.

    Returns
    -------
    FeatureReport
        What a plugin raises is in it.

    Raises
    ------
    ConfigurationError
        If the plugin's description is incomplete.
    DataError
        If the panel has fewer than three bars.
    ExpressionError, LookAheadError
        If a text cannot be accepted.
    MissingDataError
        If the panel or the events lack what the feature reads.
    """
    if isinstance(feature, str):
        feature = parse(feature, extra=tuple(panel.extra))
    trial = _Trial(feature=feature, inputs=_needed(feature, panel, events), rng=np.random.default_rng(seed))
    checks: list[ContractCheck] = []
    for name, clause in _CLAUSES.items():
        checks.append(_judge(name, trial, clause))
        if name == "shape_and_dtype" and not checks[-1].passed:
            return FeatureReport(feature=trial.name, checks=tuple(checks), leaks=None)
    leaks: LeakReport | None = None
    try:
        leaks = check_leaks(feature, panel, events=trial.inputs.events, seed=seed)
        checks.append(ContractCheck(name="no_leak", passed=leaks.passed, detail=leaks.summary()))
    except FOREIGN_ERRORS as error:
        checks.append(ContractCheck(name="no_leak", passed=False, detail=_raised(error)))
    return FeatureReport(feature=trial.name, checks=tuple(checks), leaks=leaks)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    feature: Expression | PluginFeature
    inputs: FeatureInputs
    rng: np.random.Generator

    @property
    def name(self) -> str:
        return self.feature.text if isinstance(self.feature, Expression) else self.feature.name

    @property
    def lookback(self) -> int | None:
        return self.feature.lookback

    def compute(self, panel: Panel) -> object:
        """Compute on a copy, which the feature may spoil, with the events of the panel's symbols."""
        events = None if self.inputs.events is None else self.inputs.events.select(panel.symbols)
        return self.compute_inputs(FeatureInputs(panel=panel.slice(), events=events))

    def compute_inputs(self, inputs: FeatureInputs) -> object:
        if isinstance(self.feature, Expression):
            return compute(self.feature, inputs.panel)
        with np.errstate(all="ignore"):
            return self.feature.compute(inputs.panel, inputs.events)

    def values(self, panel: Panel) -> FloatArray:
        """Compute, and copy; `_Broken` if shape or dtype is not as promised."""
        return _as_promised(self.compute(panel), panel)


class _Broken(ValueError):
    """A clause is not kept; the text says how."""


def _judge(name: str, trial: _Trial, clause: Callable[[_Trial], str]) -> ContractCheck:
    try:
        return ContractCheck(name=name, passed=True, detail=clause(trial))
    except _Broken as broken:
        return ContractCheck(name=name, passed=False, detail=str(broken))
    except FOREIGN_ERRORS as error:
        return ContractCheck(name=name, passed=False, detail=_raised(error))


def _raised(error: BaseException) -> str:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"it raised {type(error).__name__}: {error}{notes}"


def _needed(feature: Expression | PluginFeature, panel: Panel, events: Events | None) -> FeatureInputs:
    if panel.n_bars < 3:
        raise DataError(f"the contract is checked on at least 3 bars, got {panel.n_bars}; pass a longer panel.")
    if isinstance(feature, Expression):
        columns, kinds, name = feature.fields, frozenset[str](), feature.text
    else:
        check_description(feature)
        columns, kinds, name = feature.columns, feature.event_kinds, feature.name
    own_vwap = "vwap" in panel.extra and isinstance(feature, Expression) and "vwap" in feature.names
    missing = sorted(columns - set(panel.fields))
    if missing and not own_vwap:
        raise MissingDataError(f"{name} reads {', '.join(missing)}; the data set has {', '.join(panel.fields)}.")
    if not kinds:
        return FeatureInputs(panel=panel)
    absent = sorted(kinds - (events.kinds if events is not None else frozenset()))
    if events is None or absent:
        raise MissingDataError(f"{name} reads events of kind {', '.join(absent)}; pass `events` that have them.")
    check_symbols(panel, events)
    return FeatureInputs(panel=panel, events=events.of_kind(*kinds))


def _shaped(raw: object, panel: Panel) -> FloatArray:
    if not isinstance(raw, np.ndarray):
        raise _Broken(f"an ndarray is expected, got {type(raw).__name__}")
    if raw.dtype != np.float64:
        raise _Broken(f"float64 is expected, got {raw.dtype}")
    if raw.shape != panel.shape:
        raise _Broken(f"the shape {panel.shape} of the panel is expected, got {raw.shape}")
    return raw


def _as_promised(raw: object, panel: Panel) -> FloatArray:
    values = _shaped(raw, panel)
    if np.isinf(values).any():
        bar, asset = np.argwhere(np.isinf(values))[0]
        raise _Broken(f"infinite for {panel.symbols[asset]} at bar {bar}; a value that is not there is NaN")
    return values.copy()


def _shape_and_dtype(trial: _Trial) -> str:
    values = _shaped(trial.compute(trial.inputs.panel), trial.inputs.panel)
    return f"{values.dtype} of shape {values.shape}"


def _nan_policy(trial: _Trial) -> str:
    panel = trial.inputs.panel
    values = trial.values(panel)
    if np.isnan(values).all() and panel.n_bars > (trial.lookback or 0) and np.isnan(trial.values(_filled(panel))).all():
        raise _Broken(f"NaN everywhere, on {panel.n_bars} bars without gaps with a lookback of {trial.lookback}")
    return f"never infinite; NaN in {np.isnan(values).mean():.1%} of the values"


def _filled(panel: Panel) -> Panel:
    """The panel without gaps and zeros in bars, which may rightly leave a long window without any value."""
    columns = {}
    for name in panel.fields:
        frame = panel.frame(name)
        columns[name] = (frame.where(frame > 0.0) if name in BAR_FIELDS else frame).ffill().bfill().to_numpy()
    return with_columns(panel, panel.index, columns)


def _determinism(trial: _Trial) -> str:
    first, second = trial.values(trial.inputs.panel), trial.values(trial.inputs.panel)
    _same(first, second, trial.inputs.panel, "when it was computed twice on the same data")
    return "the same bits twice"


def _no_hidden_state(trial: _Trial) -> str:
    panel = trial.inputs.panel
    first = trial.values(panel)
    trial.values(panel.slice(0, panel.n_bars // 2))
    trial.compute_inputs(lengthen(trial.inputs, trial.rng))
    _same(first, trial.values(panel), panel, "after other data had been computed: it remembers something")
    return "the same bits after shorter, longer and different data"


def _inputs_unchanged(trial: _Trial) -> str:
    panel, events = trial.inputs.panel, trial.inputs.events
    mine = FeatureInputs(panel=panel.slice(), events=None if events is None else events.copy())
    trial.compute_inputs(mine)
    if mine.panel.content_sha256() != panel.content_sha256():
        raise _Broken("it changed the panel it was given; copy before writing")
    if events is not None and mine.events is not None and not mine.events.table.equals(events.table):
        raise _Broken("it changed the events it was given; copy before writing")
    return "bars and events as they were"


def _lookback(trial: _Trial) -> str:
    panel, lookback = trial.inputs.panel, trial.lookback
    if lookback is None:
        return "declared as all history: nothing to prove"
    if lookback >= panel.n_bars:
        return f"not proved: {panel.n_bars} bars are not longer than the lookback of {lookback}"
    whole = trial.values(panel)
    for start in _starts(panel.n_bars - lookback, trial.rng):
        late = trial.values(panel.slice(start, None))[lookback:]
        changes = relative_changes(whole[start + lookback :], late)
        if changes.any():
            row, asset = np.argwhere(changes)[0]
            raise _Broken(
                f"{panel.symbols[asset]} at bar {start + lookback + row} changed when the data began {lookback + row} bars "
                f"before it, at bar {start}: it needs more than the {lookback} bars it declares"
            )
    return f"{lookback} bars are enough"


def _starts(n_choices: int, rng: np.random.Generator) -> Iterator[int]:
    """First bars to try: one later, the latest possible, and some between."""
    yield from sorted({min(1, n_choices - 1), n_choices - 1, *map(int, rng.integers(0, n_choices, 4))})


def _one_asset(trial: _Trial) -> str:
    for symbol in trial.inputs.panel.symbols[:3]:
        trial.values(trial.inputs.panel.select([symbol]))
    return "computed on single symbols"


def _missing_asset(trial: _Trial) -> str:
    panel = trial.inputs.panel
    for part in (panel, panel.select(panel.symbols[:1])):
        gone = {name: part.get(name).copy() for name in part.fields}
        for values in gone.values():
            values[:, 0] = np.nan
        trial.values(with_columns(part, part.index, gone))
    return "computed with a symbol that has no bar, and on it alone"


def _short_data(trial: _Trial) -> str:
    panel = trial.inputs.panel
    lengths = sorted({1, 2, min(max(trial.lookback or 2, 1), panel.n_bars)})
    for length in lengths:
        trial.values(panel.slice(0, length))
    return f"computed on {', '.join(map(str, lengths))} bars"


_CLAUSES: dict[str, Callable[[_Trial], str]] = {
    "shape_and_dtype": _shape_and_dtype,
    "nan_policy": _nan_policy,
    "determinism": _determinism,
    "no_hidden_state": _no_hidden_state,
    "inputs_unchanged": _inputs_unchanged,
    "lookback": _lookback,
    "one_asset": _one_asset,
    "missing_asset": _missing_asset,
    "short_data": _short_data,
}


def _same(first: FloatArray, second: FloatArray, panel: Panel, when: str) -> None:
    moved = ~((first == second) | (np.isnan(first) & np.isnan(second)))
    if moved.any():
        bar, asset = np.argwhere(moved)[0]
        before, after = first[bar, asset], second[bar, asset]
        raise _Broken(f"{panel.symbols[asset]} at bar {bar} was {before:.6g}, then {after:.6g} {when}")
