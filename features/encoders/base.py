"""What every encoder promises, and what all of them refuse."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError, ShapeError
from features.windows import Windows

DIMS = 320

Embeddings = npt.NDArray[np.float32]
WindowValues = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@runtime_checkable
class Encoder(Protocol):
    """Turn windows into vectors of unit length.

    An encoder is fitted on windows of the training period alone; an embedding is known at the end of its window. The
    same fit on the same windows gives the same embeddings, alone as in company.
    """

    @property
    def name(self) -> str:
        """Name by which `get_encoder` finds it."""

    @property
    def version(self) -> str:
        """Changes whenever the embeddings of the same fit would."""

    @property
    def dims(self) -> int:
        """Length of an embedding."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of everything that was fitted and moves an embedding."""

    @property
    def trained_until(self) -> datetime | None:
        """End of the last window it was fitted on, in UTC; None when it was fitted on bare arrays."""

    @property
    def window_shape(self) -> tuple[int, int]:
        """Bars and channels of the windows it was fitted on, the only shape it encodes."""

    def fit(self, windows: Windows | npt.ArrayLike) -> Self:
        """Learn from windows of shape (n_windows, window, n_channels)."""

    def encode(self, windows: Windows | npt.ArrayLike) -> Embeddings:
        """Encode windows into an array of shape (n_windows, dims), float32."""

    def save(self, path: Path) -> None:
        """Write everything that was fitted to one file."""

    @classmethod
    def load(cls, path: Path, *, sha256: str | None = None) -> Self:
        """Read what `save` wrote; with `sha256`, only if it is that very fit."""


def check_windows(windows: Windows | npt.ArrayLike, shape: tuple[int, int] | None = None) -> WindowValues:
    """Return windows as floats of shape (n_windows, window, n_channels), float32 if they were.

    Parameters
    ----------
    windows : Windows or array-like of shape (n_windows, window, n_channels)
    shape : tuple of int, optional
        Bars and channels that a window must have.

    Raises
    ------
    ShapeError
        If they are not three-dimensional, or not of that shape.
    MissingDataError
        If any value is NaN or infinite, or a window never moves.
    """
    values = np.asarray(windows.values if isinstance(windows, Windows) else windows)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if values.ndim != 3:
        raise ShapeError(
            f"windows must have shape (n_windows, window, n_channels), were {values.shape}; use `rolling_windows`."
        )
    if shape is not None and values.shape[1:] != shape:
        raise ShapeError(
            f"windows must have shape (n_windows, {shape[0]}, {shape[1]}) as the fitted ones, had {values.shape}; "
            "cut such windows, or fit an encoder on these."
        )
    if not np.isfinite(values).all():
        raise MissingDataError(
            "windows must be free of NaN and infinity; leave incomplete ones out, as `rolling_windows` does."
        )
    still = (values == values[:, :1]).all(axis=(1, 2))
    if still.any():
        raise MissingDataError(
            f"windows must move: {int(still.sum())} of {len(values)} are constant, the first at {int(still.argmax())}; "
            "leave windows without a change of price out, as `rolling_windows` does."
        )
    return values


def scale_to_unit(vectors: npt.NDArray[np.floating]) -> Embeddings:
    """Divide each row by its length; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Embeddings = (vectors / np.where(length > 0.0, length, 1.0)).astype(np.float32)
    return scaled


def training_end(windows: Windows | npt.ArrayLike) -> datetime | None:
    """Return when the last of the windows ends, or None for bare arrays."""
    if not isinstance(windows, Windows) or not len(windows):
        return None
    end: datetime = windows.end_ts.max().to_pydatetime()
    return end
