"""MiniRocket: shares of positive responses to fixed kernels, projected on principal components."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError, DataError, MissingDataError, ShapeError
from features.encoders.base import DIMS, Embeddings, WindowValues, check_windows
from features.encoders.files import FittedState, pack_array, unpack_array
from features.encoders.fitted import Fit, FittedEncoder
from features.encoders.projection import Projection
from features.windows import Windows

_N_FEATURES, _MAX_DILATIONS, _CHUNK, _BARS_MIN = 2_016, 32, 2_048, 9
_PARAMETERS = ("n_channels", "channels", "dilations", "n_features", "biases")


@dataclass(frozen=True, eq=False)
class _Fit(Fit):
    parameters: tuple[npt.NDArray[Any], ...]
    projection: Projection


class MiniRocketEncoder(FittedEncoder[_Fit]):
    """Project the features of multivariate MiniRocket on their 320 leading principal components.

    Needs the extra ``minirocket``. Embeddings have unit length.

    Parameters
    ----------
    seed : int, default=0
        Of the choice of channels and biases.

    Notes
    -----
    Features are those of sktime's implementation of [1]_. We take 2,016 of them instead of 10,000, because 320 dimensions
    keep no more, and standardise them before the projection. The first use compiles for about 20 seconds.

    References
    ----------
    .. [1] Dempster, A., Schmidt, D. F. and Webb, G. I. (2021). MiniRocket: A very fast (almost) deterministic transform for
       time series classification. KDD, 248-257.
    """

    name = "minirocket"
    version = "1"

    def __init__(self, *, seed: int = 0) -> None:
        if not 0 <= seed < 2**31:
            raise ConfigurationError(f"`seed` must be in 0..{2**31 - 1}, was {seed}.")
        self.seed = seed

    def fit(self, windows: Windows | npt.ArrayLike) -> Self:
        """Learn biases and components.

        Parameters
        ----------
        windows : Windows or array-like of shape (n_windows, window, n_channels)
            Windows of the training period.

        Raises
        ------
        ConfigurationError
            If sktime is not installed.
        ShapeError
            If a window has fewer than nine bars.
        MissingDataError
            If a value is NaN, a window is constant, or there are fewer than 321 windows.
        """
        kernels = _import_kernels()
        values = check_windows(windows)
        if values.shape[1] < _BARS_MIN:
            raise ShapeError(f"MiniRocket needs windows of at least {_BARS_MIN} bars, had {values.shape[1]}.")
        if not len(values):
            raise MissingDataError("there are no windows to fit; windows longer than the history leave none.")
        before = np.random.get_state()  # noqa: NPY002  sktime seeds this generator
        try:
            parameters = kernels._fit_multi(_turned(values), _N_FEATURES, _MAX_DILATIONS, np.int32(self.seed))
        finally:
            np.random.set_state(before)  # noqa: NPY002
        projection = Projection.fit(_transform(parameters, values).astype(np.float64))
        packed = {name: pack_array(array) for name, array in zip(_PARAMETERS, parameters, strict=True)}
        return self._learn(windows, values, {**projection.pack(), **packed}, {"seed": self.seed})

    def encode(self, windows: Windows | npt.ArrayLike) -> Embeddings:
        """Encode windows into rows of unit length.

        Parameters
        ----------
        windows : Windows or array-like of shape (n_windows, window, n_channels)
            Any number of windows of the fitted shape.

        Returns
        -------
        ndarray of shape (n_windows, 320), float32

        Raises
        ------
        MissingDataError
            If the encoder is not fitted, a value is NaN, or a window is constant.
        ShapeError
            If the windows have another shape than the fitted ones.
        """
        fit = self._fitted()
        values = check_windows(windows, fit.state.window_shape)
        out = np.empty((len(values), DIMS), dtype=np.float32)
        for start in range(0, len(values), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = fit.projection.apply(_transform(fit.parameters, values[part]))
        return out

    def _open(self, state: FittedState) -> _Fit:
        _import_kernels()
        missing = [part for part in _PARAMETERS if part not in state.payload]
        if missing:
            raise DataError(f"the fit of {self.name} holds no {', '.join(missing)}; fit the encoder again.")
        parameters = tuple(unpack_array(state.payload[part]) for part in _PARAMETERS)
        projection = Projection.unpack(state, len(parameters[_PARAMETERS.index("biases")]))
        return _Fit(state=state, parameters=parameters, projection=projection)


def _import_kernels() -> Any:
    if find_spec("sktime") is None:
        raise ConfigurationError("MiniRocket needs sktime: pip install 'agentic-quantitative-framework[minirocket]'.")
    from sktime.transformations.rocket import _minirocket_multi_numba

    return _minirocket_multi_numba


def _turned(values: WindowValues) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values.transpose(0, 2, 1), dtype=np.float32)


def _transform(parameters: tuple[npt.NDArray[Any], ...], values: WindowValues) -> npt.NDArray[np.float32]:
    features: npt.NDArray[np.float32] = _import_kernels()._transform_multi(_turned(values), parameters)
    return features
