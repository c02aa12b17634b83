"""A map of windows: where they lie in two dimensions, and which past ones are nearest to a chosen one.

Hides the projection. Promises that neighbours are windows whose outcome was known when the chosen one ended. Pictures and page
are in `features.map_pictures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError, MissingDataError
from core.market.panel import Panel
from features.fields import FloatArray
from features.nearest_windows import IntArray, find_analogues
from features.windows import Windows, regime_at

DELAY = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingMap:
    """Hold a map and what is shown beside it.

    Parameters
    ----------
    points : ndarray of shape (n_windows, 2)
        Scores on the two leading principal components of the vectors.
    explained : tuple of float
        Shares of the variance that they keep.
    symbol, regime : ndarray of shape (n_windows,), str
    end_ts : pandas.DatetimeIndex of length n_windows
    chosen : int
        Position of the chosen window.
    neighbours : ndarray of shape (n_neighbours,), int
        The nearest eligible windows, nearest first.
    similarity : ndarray of shape (n_neighbours,)
        Their cosines to the chosen one.
    paths : ndarray of shape (1 + n_neighbours, window + horizon + 1)
        Closes of the chosen window and of the neighbours and what followed, 100 at the last bar of the window; NaN where it was
        not known yet at the end of the chosen one.
    window, horizon : int
        Bars of a window, and of what followed.
    encoder : str
        Name of the encoder.
    trained_until : datetime or None
        Windows up to here are in-sample.
    dataset : str
    """

    points: FloatArray
    explained: tuple[float, float]
    symbol: npt.NDArray[np.str_]
    regime: npt.NDArray[np.str_]
    end_ts: pd.DatetimeIndex
    chosen: int
    neighbours: IntArray
    similarity: FloatArray
    paths: FloatArray
    window: int
    horizon: int
    encoder: str
    trained_until: datetime | None
    dataset: str

    @property
    def followed(self) -> FloatArray:
        """Return of each neighbour over the bars after its window, as fractions."""
        values: FloatArray = self.paths[1:, -1] / self.paths[1:, self.window] - 1.0
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader of JSON wants: the chosen window and its neighbours, without the points."""
        rows = [
            {
                "symbol": str(self.symbol[place]),
                "end": f"{self.end_ts[place]:%Y-%m-%d}",
                "regime": str(self.regime[place]),
                "cosine": round(float(cosine), 6),
                "followed": round(float(followed), 6) if np.isfinite(followed) else None,
            }
            for place, cosine, followed in zip(self.neighbours, self.similarity, self.followed, strict=True)
        ]
        return {
            "dataset": self.dataset,
            "encoder": self.encoder,
            "trained_until": None if self.trained_until is None else f"{self.trained_until:%Y-%m-%d}",
            "n_windows": len(self.points),
            "explained": [round(share, 6) for share in self.explained],
            "chosen": {
                "symbol": str(self.symbol[self.chosen]),
                "end": f"{self.end_ts[self.chosen]:%Y-%m-%d}",
                "regime": str(self.regime[self.chosen]),
            },
            "horizon": self.horizon,
            "neighbours": rows,
        }


def choose_window(windows: Windows, symbol: str | None = None, until: datetime | None = None) -> int:
    """Return the position of the newest window of a symbol that ends by a time.

    Raises
    ------
    MissingDataError
        If there is none.
    """
    at = np.arange(len(windows)) if symbol is None else np.flatnonzero(windows.symbol == symbol)
    if symbol is not None and not len(at):
        raise MissingDataError(
            f"there is no window of {symbol!r}; there are windows of {', '.join(np.unique(windows.symbol))}."
        )
    if until is not None:
        at = at[windows.end_ts[at] <= pd.Timestamp(until)]
    if not len(at):
        when = "" if until is None else f" that ends by {until:%Y-%m-%d}"
        raise MissingDataError(f"there is no window{when}; choose a later day, a longer history or a shorter window.")
    return int(at[np.argmax(windows.end[at])])


def build_map(
    panel: Panel,
    windows: Windows,
    vectors: npt.NDArray[np.float32],
    *,
    chosen: int,
    count: int = 8,
    horizon: int = 21,
    encoder: str = "",
    trained_until: datetime | None = None,
) -> EmbeddingMap:
    """Project windows on two dimensions and find the neighbours of one.

    Parameters
    ----------
    panel : Panel
        The windows' closes.
    windows : Windows
    vectors : ndarray of shape (n_windows, n_dims)
        Their embeddings.
    chosen : int
        Position of the window whose neighbours are wanted.
    count : int, default=8
        Neighbours, fewer if fewer are eligible; one of each symbol's overlapping windows would show the same days, so windows
        are a whole window apart from others of the same symbol.
    horizon : int, default=21
        Bars after a window to show; they had ended before the chosen window did.
    encoder : str
        Its name, for the captions.
    trained_until : datetime, optional
        Of the encoder.

    Raises
    ------
    DataError
        If there are fewer than three windows, or `count` or `horizon` is below 1.
    """
    if len(windows) < 3:
        raise DataError(f"a map needs at least 3 windows, there are {len(windows)}; take a longer history or a smaller stride.")
    if count < 1 or horizon < 1:
        raise DataError(f"`count` and `horizon` must be at least 1, were {count} and {horizon}.")
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    leading = axes[:, :-3:-1]
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(2)])
    total = float(values.sum()) or 1.0
    neighbours = _find_apart(windows, vectors, chosen, count, horizon)
    query = vectors[chosen].astype(np.float64)
    others = vectors[neighbours].astype(np.float64)
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(query)
    shown = np.concatenate([[chosen], neighbours])
    return EmbeddingMap(
        points=centred @ leading,
        explained=(float(values[-1]) / total, float(values[-2]) / total),
        symbol=windows.symbol,
        regime=regime_at(panel, windows.end),
        end_ts=windows.end_ts,
        chosen=chosen,
        neighbours=neighbours,
        similarity=np.divide(others @ query, lengths, out=np.zeros(len(others)), where=lengths > 0.0),
        paths=np.stack([_path(panel, windows, int(place), int(windows.end[chosen]), horizon) for place in shown]),
        window=windows.values.shape[1],
        horizon=horizon,
        encoder=encoder,
        trained_until=trained_until,
        dataset=panel.name,
    )


def _find_apart(windows: Windows, vectors: npt.NDArray[np.float32], chosen: int, count: int, horizon: int) -> IntArray:
    """Take the nearest windows one after the other, leaving out those that overlap one of the same symbol."""
    eligible = int((windows.end + DELAY + horizon < windows.end[chosen]).sum())
    if not eligible:
        return np.empty(0, dtype=np.int64)
    ranked, _ = find_analogues(vectors, windows.end, k=eligible, reach=DELAY + horizon, queries=[chosen])
    taken: list[int] = []
    bars = windows.values.shape[1]
    for place in ranked[0][ranked[0] >= 0]:
        same = [other for other in taken if windows.symbol[other] == windows.symbol[place]]
        if all(abs(int(windows.end[other] - windows.end[place])) >= bars for other in same):
            taken.append(int(place))
        if len(taken) == count:
            break
    return np.array(taken, dtype=np.int64)


def _path(panel: Panel, windows: Windows, place: int, known: int, horizon: int) -> FloatArray:
    start, end = int(windows.start[place]), int(windows.end[place])
    column = panel.symbols.index(str(windows.symbol[place]))
    bars = np.arange(start, end + DELAY + horizon + 1)
    close = np.full(len(bars), np.nan)
    there = bars <= min(known, panel.n_bars - 1)
    close[there] = panel.close[bars[there], column]
    path: FloatArray = 100.0 * close / panel.close[end, column]
    return path
