"""A portfolio rule: every choice between a score and a target weight, in one message.

Hides how the steps follow each other. Promises that row ``t`` of the weights depends on rows ``0..t`` of scores and prices
alone, and that no row's sum of absolute weights exceeds `max_gross`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from backtest.portfolio import average_targets, check_scores, compute_targets
from backtest.volatility import compute_trailing_volatility
from core.errors import ConfigurationError, MissingDataError, ShapeError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]
Selection = Literal["cross_section", "time_series", "quantile", "threshold"]
Scaling = Literal["equal", "inverse_volatility"]

_LEAST_VOLATILITY = 1e-9  # per bar; below it is the rounding of constant returns


@dataclass(frozen=True, kw_only=True)
class PortfolioRule:
    """Hold how scores become weights.

    Parameters
    ----------
    method : {"cross_section", "time_series", "quantile", "threshold"}, default="cross_section"
        ``cross_section`` and ``time_series`` as in `scores_to_weights`. ``quantile``: the highest scores of the bar are held
        long and the lowest short, each side in equal parts. ``threshold``: each asset on its own is held long above
        `threshold` and short below its negative, every asset with a score being given an equal part of `gross`.
    n_per_side : int, optional
        Assets a side of ``quantile`` holds; at most half of those with a score when both sides are held.
    quantile : float, optional
        The same as a part of the assets with a score, in (0, 0.5], rounded down to whole assets but at least one. One of the
        two is needed for ``quantile``, and neither for another method. Equal scores across the border share its places.
    threshold : float, default=0.0
        In units of the score.
    long_only : bool, default=False
        Keep what is long. Methods that compare assets (``cross_section``, ``quantile``) give it all of `gross`; those that
        judge each asset alone keep the rest in cash.
    scaling : {"equal", "inverse_volatility"}, default="equal"
        ``inverse_volatility`` divides each weight by the asset's trailing volatility and keeps the sum of each side.
    groups : mapping of str to str, or tuple of pairs, default=()
        Sector, or any other group, of each symbol. The mean weight of each group's assets with a score is taken from them
        and the row scaled back to its sum, so that every group sums to zero; an asset alone in its group is not held. Empty
        for no groups. Kept as sorted pairs.
    holding_bars : int, default=1
        Average of the targets of the last bars, as in `scores_to_weights`.
    gross : float, default=1.0
        Sum of absolute weights of a target, before the steps below change it.
    volatility_target : float, optional
        Volatility per year, as a fraction, that each row is scaled to: the standard deviation that its own weights would have
        had over the trailing returns.
    volatility_bars : int, default=60
        Trailing window of both volatilities, the bar of the decision included; half of it must be known. Where either is
        asked for, an asset whose own volatility is zero or not known counts as without a score.
    max_weight : float, optional
        Largest absolute weight of one asset.
    redistribute : bool, default=False
        Give what the cap cuts to the other assets of the same side, in proportion, as far as their caps allow. Otherwise it
        stays in cash.
    max_gross : float, default=2.0
        Largest sum of absolute weights, that the volatility target may not exceed.
    rebalance_bars : int, default=1
        Bars from one decision to the next, counted from the first; between them rows are NaN, which holds the shares.
    periods_per_year : int, default=252
        Bars in a year, for `volatility_target`.

    Raises
    ------
    ConfigurationError
        If a value is out of its range, or choices contradict each other.
    """

    method: Selection = "cross_section"
    n_per_side: int | None = None
    quantile: float | None = None
    threshold: float = 0.0
    long_only: bool = False
    scaling: Scaling = "equal"
    groups: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    holding_bars: int = 1
    gross: float = 1.0
    volatility_target: float | None = None
    volatility_bars: int = 60
    max_weight: float | None = None
    redistribute: bool = False
    max_gross: float = 2.0
    rebalance_bars: int = 1
    periods_per_year: int = 252

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(sorted(dict(self.groups).items())))  # hashable, and in one order
        self._check_choice("method", get_args(Selection))
        self._check_choice("scaling", get_args(Scaling))
        for name in ("long_only", "redistribute"):
            self._check_choice(name, (True, False))
        for name in ("holding_bars", "rebalance_bars", "periods_per_year"):
            self._check_count(name, 1)
        self._check_count("volatility_bars", 4)
        self._check_range("threshold", -math.inf if self.long_only else 0.0, math.inf)
        self._check_range("max_gross", 0.0, 100.0)
        self._check_range("gross", 0.0, 100.0)
        if self.gross > self.max_gross:
            raise ConfigurationError(f"`gross` must not exceed `max_gross` = {self.max_gross:g}, was {self.gross:g}.")
        if self.volatility_target is not None:
            self._check_range("volatility_target", 0.0, 10.0)
        if self.max_weight is not None:
            self._check_range("max_weight", 0.0, 100.0)
        if self.n_per_side is not None:
            self._check_count("n_per_side", 1)
        if self.quantile is not None:
            self._check_range("quantile", 0.0, 0.5)
        given = (self.n_per_side is not None) + (self.quantile is not None)
        if given != (self.method == "quantile"):
            raise ConfigurationError(
                'exactly one of `n_per_side` and `quantile` must be given with method "quantile", and neither without, '
                f"were {self.n_per_side!r} and {self.quantile!r} with {self.method!r}."
            )
        if self.threshold != 0.0 and self.method != "threshold":
            raise ConfigurationError(f'`threshold` is for method "threshold", was {self.threshold!r} with {self.method!r}.')
        if self.redistribute and self.max_weight is None:
            raise ConfigurationError("`redistribute` needs a `max_weight` to redistribute above.")
        if self.groups and self.long_only:
            raise ConfigurationError("`long_only` weights cannot sum to zero in each of `groups`; drop one of the two.")

    def _check_choice(self, name: str, allowed: tuple[Any, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise ConfigurationError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, was {getattr(self, name)!r}.")

    def _check_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"`{name}` must be a whole number of at least {least}, was {value!r}.")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        closed = name == "threshold"
        if not number or not (low <= value if closed else low < value) or value > high:
            raise ConfigurationError(f"`{name}` must be in {'[' if closed else '('}{low:g}, {high:g}], was {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as a JSON-safe dict."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "groups": dict(self.groups)}


_DEFAULT = PortfolioRule()


def build_weights(scores: npt.ArrayLike, panel: Panel, rule: PortfolioRule = _DEFAULT) -> FloatArray:
    """Turn scores into target weights by a rule.

    .. warning::

        Row ``t`` is decided at the close of ``t`` from scores and prices up to it; `run_backtest` trades it at ``t+1``.

    Parameters
    ----------
    scores : array_like of shape (n_bars, n_assets)
        The higher, the more an asset is wanted, known at the close of its bar. NaN means no opinion: weight zero.
    panel : Panel
        Prices for the volatilities, symbols for the groups.
    rule : PortfolioRule, optional
        The default is `scores_to_weights` with its defaults, less what is rounding beside `gross`.

    Returns
    -------
    ndarray of shape (n_bars, n_assets), fractions of equity
        Rows between rebalances are NaN.

    Raises
    ------
    ShapeError
        If `scores` does not have the shape of the panel.
    DataError
        If a score is infinite.
    MissingDataError
        If `groups` leaves out a symbol of the panel.

    Notes
    -----
    In this order: selection by `method`; `long_only`; `scaling`; `groups`; `holding_bars`; `volatility_target`; `max_weight`;
    `max_gross`; `rebalance_bars`. A later step may undo what an earlier one promised: after a cap a book need not be neutral,
    nor at its volatility target.

    Weights in proportion to one over volatility give assets an equal risk where all correlations are equal [1]_. The
    volatility target uses the covariance of the window implicitly, by the returns that the row's weights would have earned in
    it; an unknown return counts as zero.

    References
    ----------
    .. [1] Maillard, S., Roncalli, T. & Teiletche, J. (2010). The properties of equally weighted risk contribution portfolios.
       Journal of Portfolio Management, 36(4), 60-70.
    """
    values = check_scores(scores)
    if values.shape != panel.shape:
        raise ShapeError(f"`scores` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {values.shape}.")
    groups = dict(rule.groups)
    missing = [symbol for symbol in panel.symbols if symbol not in groups]
    if groups and missing:
        raise MissingDataError(f"`groups` must name every symbol of the panel, it has no {', '.join(missing)}.")
    volatility = np.ones(panel.shape)
    if rule.scaling == "inverse_volatility" or rule.volatility_target is not None:
        bars = rule.volatility_bars
        volatility = compute_trailing_volatility(panel.returns(), bars=bars, minimum=bars // 2)
        values = np.where(volatility > _LEAST_VOLATILITY, values, np.nan)
    weights = _select(values, rule)
    if rule.scaling == "inverse_volatility":
        weights = _scale_sides(weights, volatility)
    if groups:
        weights = _neutralise(weights, np.isfinite(values), np.array([groups[symbol] for symbol in panel.symbols]))
    weights = _drop_dust(average_targets(weights, rule.holding_bars), np.full(len(weights), rule.gross))
    if rule.volatility_target is not None:
        target = rule.volatility_target / math.sqrt(rule.periods_per_year)
        weights = _target_volatility(weights, panel.returns(), target, rule.volatility_bars)
    if rule.max_weight is not None:
        weights = _redistribute(weights, rule.max_weight) if rule.redistribute else weights
        weights = np.clip(weights, -rule.max_weight, rule.max_weight)
    total = np.abs(weights).sum(axis=1, keepdims=True)
    weights *= np.divide(rule.max_gross, total, out=np.ones_like(total), where=total > rule.max_gross)
    weights[np.arange(len(weights)) % rule.rebalance_bars != 0] = np.nan
    return weights


def _select(scores: FloatArray, rule: PortfolioRule) -> FloatArray:
    known = np.isfinite(scores)
    if rule.method == "quantile":
        weights = _pick_ends(scores, known, rule)
    elif rule.method == "threshold":
        side = 1.0 * (scores > rule.threshold) - 1.0 * (scores < -rule.threshold)
        if rule.long_only:
            side = 1.0 * (scores > rule.threshold)
        weights = side * (rule.gross / np.maximum(known.sum(axis=1, keepdims=True), 1))
    else:
        weights = compute_targets(scores, method=rule.method, gross=rule.gross)
    if rule.long_only:
        weights = np.maximum(weights, 0.0)
        if rule.method in ("cross_section", "quantile"):
            weights = _rescale(weights, np.where(weights.any(axis=1), rule.gross, 0.0))
    return weights


def _pick_ends(scores: FloatArray, known: npt.NDArray[np.bool_], rule: PortfolioRule) -> FloatArray:
    count = known.sum(axis=1)
    if rule.quantile is not None:
        wanted = np.maximum(np.floor(rule.quantile * count + 1e-9), 1.0)
    else:
        wanted = np.full(len(scores), float(rule.n_per_side or 0))
    size = np.minimum(wanted, count if rule.long_only else count // 2)
    longs = _share_top(scores, size)
    if rule.long_only:
        return longs
    weights = (longs - _share_top(-scores, size)) * (0.5 * rule.gross / np.maximum(size, 1.0))[:, None]
    return cast(FloatArray, weights)


def _share_top(scores: FloatArray, size: FloatArray) -> FloatArray:
    """Give each score its share, 0 to 1, of the `size` highest places of its row; equal scores share theirs."""
    n_assets = scores.shape[1]
    order = np.argsort(-scores, axis=1, kind="stable")  # missing scores come last
    ranked = np.take_along_axis(scores, order, axis=1)
    places = np.broadcast_to(np.arange(n_assets), scores.shape)
    fresh = np.ones(scores.shape, bool)
    fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = np.maximum.accumulate(np.where(fresh, places, 0), axis=1)
    closing = np.ones(scores.shape, bool)
    closing[:, :-1] = fresh[:, 1:]
    last = np.minimum.accumulate(np.where(closing, places, n_assets)[:, ::-1], axis=1)[:, ::-1]
    share = np.clip(size[:, None] - first, 0.0, last - first + 1.0) / (last - first + 1.0)
    out = np.zeros(scores.shape)
    np.put_along_axis(out, order, np.where(np.isnan(ranked), 0.0, share), axis=1)
    return out


def _rescale(weights: FloatArray, total: FloatArray) -> FloatArray:
    """Scale each row to a sum of absolute weights, unless it is empty."""
    now = np.abs(weights).sum(axis=1)
    factor = np.divide(total, now, out=np.zeros(len(weights)), where=now > 0.0)
    return cast(FloatArray, weights * factor[:, None])


def _drop_dust(weights: FloatArray, total: FloatArray) -> FloatArray:
    """Empty what is nothing but rounding beside the row's sum, before a later step scales it up."""
    return np.where(np.abs(weights) > 1e-12 * total[:, None], weights, 0.0)


def _scale_sides(weights: FloatArray, volatility: FloatArray) -> FloatArray:
    out = np.zeros(weights.shape)
    for side in (np.maximum(weights, 0.0), np.minimum(weights, 0.0)):
        scaled = np.divide(side, volatility, out=np.zeros(side.shape), where=side != 0.0)
        out += _rescale(scaled, np.abs(side).sum(axis=1))
    return out


def _neutralise(weights: FloatArray, known: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_]) -> FloatArray:
    out = np.zeros(weights.shape)
    for group in np.unique(groups):
        inside = known & (groups == group)
        part = np.where(inside, weights, 0.0)
        mean = part.sum(axis=1, keepdims=True) / np.maximum(inside.sum(axis=1, keepdims=True), 1)
        out += np.where(inside, part - mean, 0.0)
    total = np.abs(weights).sum(axis=1)
    return _rescale(_drop_dust(out, total), total)


def _target_volatility(weights: FloatArray, returns: FloatArray, target: float, bars: int) -> FloatArray:
    n_bars = len(weights)
    earned = np.full((min(bars, n_bars), n_bars), np.nan)
    known = np.nan_to_num(returns)
    for age in range(len(earned)):  # what row t would have earned `age` bars before t; the first bar has no return
        earned[age, age + 1 :] = np.einsum("ij,ij->i", weights[age + 1 :], known[1 : n_bars - age])
    count = np.isfinite(earned).sum(axis=0)
    apart = earned - np.nansum(earned, axis=0) / np.maximum(count, 1)
    volatility = np.sqrt(np.nansum(apart**2, axis=0) / np.maximum(count - 1, 1))
    usable = (count >= bars // 2) & (volatility > _LEAST_VOLATILITY * np.abs(weights).sum(axis=1)) & (volatility > 0.0)
    factor = np.divide(target, volatility, out=np.zeros(n_bars), where=usable)
    return cast(FloatArray, weights * factor[:, None])


def _redistribute(weights: FloatArray, cap: float) -> FloatArray:
    """Fill each side up to the cap, in proportion; every round caps one asset more, or is the last."""
    out = np.zeros(weights.shape)
    for sign in (1.0, -1.0):
        side = np.maximum(sign * weights, 0.0)
        total = side.sum(axis=1, keepdims=True)
        for _ in range(weights.shape[1]):
            over = side > cap
            if not over.any():
                break
            side = np.minimum(side, cap)
            free = np.where(side < cap, side, 0.0)
            spare = free.sum(axis=1, keepdims=True)
            short = np.where(over.any(axis=1, keepdims=True), total - side.sum(axis=1, keepdims=True), 0.0)
            side = side + free * np.divide(short, spare, out=np.zeros_like(spare), where=spare > 0.0)
        out += sign * side
    return out
