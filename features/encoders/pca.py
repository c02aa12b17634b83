"""Principal components of standardised windows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError, ShapeError
from features.encoders.base import DIMS, NOT_FITTED, Embeddings, check_windows, training_end
from features.encoders.files import FittedState, load_state, save_state
from features.encoders.projection import Projection
from features.windows import Windows


@dataclass(frozen=True, eq=False)
class _Fit:
    state: FittedState
    projection: Projection


class PCAEncoder:
    """Project windows on their 320 leading principal components.

    Every input (bar x channel) is standardised over the fitted windows first, so that no channel rules by its unit.
    The sign of a component is fixed by making its largest loading positive. Embeddings have unit length.

    A window of 128 bars and 3 channels has 384 inputs, which leaves room for 320 components.
    """

    name = "pca"
    version = "1"
    dims = DIMS

    def __init__(self) -> None:
        self._fit: _Fit | None = None

    def fit(self, windows: Windows | npt.ArrayLike) -> Self:
        """Learn means, spreads and components.

        Parameters
        ----------
        windows : Windows or array-like of shape (n_windows, window, n_channels)
            Windows of the training period.

        Raises
        ------
        ShapeError
            If a window has fewer than 320 inputs.
        MissingDataError
            If a value is NaN, a window is constant, or the windows span fewer than 320 directions.
        """
        values = check_windows(windows)
        bars, channels = values.shape[1:]
        if bars * channels < DIMS:
            raise ShapeError(
                f"a window must have at least {DIMS} inputs (window x channels), has {bars} x {channels} = {bars * channels}; "
                "use longer windows, for instance 128 bars."
            )
        projection = Projection.fit(_flat(values))
        state = FittedState(
            name=self.name,
            version=self.version,
            window_shape=(bars, channels),
            trained_until=training_end(windows),
            payload=projection.pack(),
            settings={"n_windows": len(values)},
        )
        self._fit = _Fit(state=state, projection=projection)
        return self

    def encode(self, windows: Windows | npt.ArrayLike) -> Embeddings:
        """Project windows and scale them to unit length.

        Parameters
        ----------
        windows : Windows or array-like of shape (n_windows, window, n_channels)
            Any number of windows of the fitted shape.

        Returns
        -------
        ndarray of shape (n_windows, 320), float32
            Rows of unit length; a window that equals the fitted mean is a row of zeros.

        Raises
        ------
        MissingDataError
            If the encoder is not fitted, a value is NaN, or a window is constant.
        ShapeError
            If the windows have another shape than the fitted ones.
        """
        fit = self._fitted()
        return fit.projection.apply(_flat(check_windows(windows, fit.state.window_shape)))

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of name, version, shape and fitted arrays.

        Raises
        ------
        MissingDataError
            If the encoder is not fitted.
        """
        return self._fitted().state.sha256

    @property
    def trained_until(self) -> datetime | None:
        """End of the last window it was fitted on."""
        return self._fitted().state.trained_until

    @property
    def window_shape(self) -> tuple[int, int]:
        """Bars and channels of a window."""
        return self._fitted().state.window_shape

    def save(self, path: Path) -> None:
        """Write means, spreads and components to a file."""
        save_state(path, self._fitted().state)

    @classmethod
    def load(cls, path: Path, *, sha256: str | None = None) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is not there, was changed, or is of another encoder or another fit.
        """
        state = load_state(path, name=cls.name, version=cls.version, sha256=sha256)
        encoder = cls()
        encoder._fit = _Fit(state=state, projection=Projection.unpack(state, state.window_shape[0] * state.window_shape[1]))
        return encoder

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise MissingDataError(NOT_FITTED)
        return self._fit


def _flat(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return values.reshape(len(values), values.shape[1] * values.shape[2]).astype(np.float64)
