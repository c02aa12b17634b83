"""What every encoder promises."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError, ShapeError
from features.windows import Windows

DIMS = 320

Embeddings = npt.NDArray[np.float32]


@runtime_checkable
class Encoder(Protocol):
    """Turn windows into vectors of unit length.

    An encoder is fitted on windows of the training period alone; an embedding is known at the end of its window. The
    same fit on the same windows gives the same embeddings.
    """

    @property
    def name(self) -> str:
        """Name by which `get_encoder` finds it."""

    @property
    def version(self) -> str:
        """Changes whenever the embeddings would."""

    @property
    def dims(self) -> int:
        """Length of an embedding."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of everything that was fitted."""

    def fit(self, windows: Windows | npt.ArrayLike) -> Self:
        """Learn from windows of shape (n_windows, window, n_channels)."""

    def encode(self, windows: Windows | npt.ArrayLike) -> Embeddings:
        """Encode windows into an array of shape (n_windows, dims), float32."""


def check_windows(windows: Windows | npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return windows as float64 of shape (n_windows, window, n_channels).

    Raises
    ------
    ShapeError
        If they are not three-dimensional.
    MissingDataError
        If any value is NaN or infinite.
    """
    values = np.asarray(windows.values if isinstance(windows, Windows) else windows, dtype=np.float64)
    if values.ndim != 3:
        raise ShapeError(
            f"windows must have shape (n_windows, window, n_channels), were {values.shape}; use `rolling_windows`."
        )
    if not np.isfinite(values).all():
        raise MissingDataError(
            "windows must be free of NaN and infinity; leave incomplete ones out, as `rolling_windows` does."
        )
    return values
