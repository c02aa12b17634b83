"""The field ``analogue(count, horizon)``: what followed the past windows most like the one that ends at each bar.

Hides the encoder. Promises values that know nothing later than their own bar: not the vectors, not what followed the
neighbours, and not the training of the encoder, so that there is no value up to the end of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.encoders.base import DIMS
from features.encoders.causal import CausalTS2VecEncoder
from features.encoders.registry import get_encoder
from features.fields import ANALOGUE_MEMORY, ANALOGUE_WINDOW, FloatArray
from features.labels import forward_returns
from features.nearest_windows import find_analogues, one_blas_thread, round_vectors
from features.windows import bar_channels

if TYPE_CHECKING:
    from core.market.panel import Panel

_MIN_SPACING = 5


def compute_analogue(panel: Panel, count: int, horizon: int) -> FloatArray:
    """Compute the mean return that followed the windows most like the one that ends at each bar.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    count : int
        Neighbours.
    horizon : int
        Bars of the return that followed.

    Returns
    -------
    ndarray of shape (n_bars, n_assets), fractions
        Row ``t`` is known at the close of bar ``t``. NaN where a close of the last 255 bars is missing or none moved, where
        fewer than `count` windows are eligible, and up to the end of the encoder's training.

    Notes
    -----
    Eligible are windows of any symbol that end at ``s = t - j * max(horizon, 5)`` for a whole number j, at most 2,520 bars ago,
    and whose label, ``close[s + 1 + horizon] / close[s + 1] - 1``, had ended before ``t``. So the labels of one symbol do not
    overlap. Windows are those of `steady_windows`, encoded bar by bar by the causal encoder that ships: a bar costs a
    fiftieth of encoding its window. A bar of a symbol takes about 0.7 kB and 8 bytes for each neighbour.
    """
    encoder = get_encoder("ts2vec_causal")
    assert isinstance(encoder, CausalTS2VecEncoder)
    trained_until = encoder.trained_until
    out = np.full(panel.shape, np.nan)
    asking = np.ones(panel.n_bars, dtype=np.bool_) if trained_until is None else panel.index > pd.Timestamp(trained_until)
    if not asking.any():
        return out
    first = max(0, int(asking.argmax()) - ANALOGUE_MEMORY - 2 * (ANALOGUE_WINDOW - 1))
    recent = panel.slice(first)
    labels = forward_returns(recent, horizon)
    values = labels.values.ravel()
    queries = np.flatnonzero(np.repeat(asking[first:], panel.n_assets))
    neighbours, _ = find_analogues(
        encode_bars(recent, encoder).reshape(-1, DIMS),
        np.repeat(np.arange(recent.n_bars), panel.n_assets),
        k=count,
        reach=labels.horizon + labels.delay,
        usable=~np.isnan(values),
        queries=queries,
        max_age=ANALOGUE_MEMORY,
        spacing=max(horizon, _MIN_SPACING),
    )
    enough = neighbours[:, -1] >= 0
    # In order of time, so that a sum does not depend on which of equally near ones came first.
    followed = values[np.sort(neighbours[enough], axis=1)].mean(axis=1)
    out[first:].reshape(-1)[queries[enough]] = followed
    return out


def encode_bars(panel: Panel, encoder: CausalTS2VecEncoder) -> npt.NDArray[np.int16]:
    """Encode the window of steady channels that ends at each bar, as a stream does.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    encoder : CausalTS2VecEncoder
        For windows of 128 bars.

    Returns
    -------
    ndarray of shape (n_bars, n_assets, 320), int16
        Rounded as `round_vectors` does, known at the close of the bar; zeros where a close of the last 255 bars is missing or
        none moved.
    """
    # A bar without channels goes in as zeros: an embedding depends on its window alone, so that no other window sees them.
    channels = bar_channels(panel, ANALOGUE_WINDOW)
    there: npt.NDArray[np.bool_] = np.logical_and.reduce(~np.isnan(channels), axis=2)
    channels = np.where(there[..., None], channels, np.float32(0.0))
    gaps = np.cumsum(~there, axis=0)
    whole = np.zeros(panel.shape, dtype=np.bool_)
    whole[ANALOGUE_WINDOW - 1 :] = there[ANALOGUE_WINDOW - 1 :]
    whole[ANALOGUE_WINDOW:] &= gaps[ANALOGUE_WINDOW:] == gaps[:-ANALOGUE_WINDOW]
    whole[ANALOGUE_WINDOW - 1 : ANALOGUE_WINDOW] &= gaps[ANALOGUE_WINDOW - 1 : ANALOGUE_WINDOW] == 0
    out = np.zeros((*panel.shape, DIMS), dtype=np.int16)
    if not whole.any():
        return out
    stream = encoder.stream(panel.n_assets)
    with one_blas_thread():  # threads would share out products differently, and round them differently
        for bar in range(panel.n_bars):
            embeddings = stream.update(channels[bar])
            if embeddings is not None:
                out[bar] = round_vectors(np.where(whole[bar, :, None], embeddings, np.float32(0.0)))
    return out
