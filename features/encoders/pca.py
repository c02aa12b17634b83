"""Principal components of standardised windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import ShapeError
from features.encoders.base import DIMS, Embeddings, check_windows
from features.encoders.files import FittedState
from features.encoders.fitted import Fit, FittedEncoder
from features.encoders.projection import Projection
from features.windows import Windows


@dataclass(frozen=True, eq=False)
class _Fit(Fit):
    projection: Projection


class PCAEncoder(FittedEncoder[_Fit]):
    """Project windows on their 320 leading principal components.

    Every input (bar x channel) is standardised over the fitted windows first, so that no channel rules by its unit.
    The sign of a component is fixed by making its largest loading positive. Embeddings have unit length.

    A window of 128 bars and 3 channels has 384 inputs, which leaves room for 320 components.
    """

    name = "pca"
    version = "1"

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
        return self._learn(windows, values, Projection.fit(_flat(values)).pack(), {})

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

    def _open(self, state: FittedState) -> _Fit:
        return _Fit(state=state, projection=Projection.unpack(state, state.window_shape[0] * state.window_shape[1]))


def _flat(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return values.reshape(len(values), values.shape[1] * values.shape[2]).astype(np.float64)
