"""Principal components of standardised windows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError, ShapeError
from features.encoders.base import DIMS, Embeddings, check_windows
from features.windows import Windows

_RELATIVE_RANK = 1e-10


@dataclass(frozen=True, eq=False)
class _Fit:
    shape: tuple[int, int]
    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    components: npt.NDArray[np.float64]


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
            If a value is NaN, or the windows span fewer than 320 directions.
        """
        values = check_windows(windows)
        n_windows, *shape = values.shape
        inputs = shape[0] * shape[1]
        if inputs < DIMS:
            raise ShapeError(
                f"a window must have at least {DIMS} inputs (window x channels), has {shape[0]} x {shape[1]} = {inputs}; "
                "use longer windows, for instance 128 bars."
            )
        if n_windows <= DIMS:
            raise MissingDataError(
                f"PCA to {DIMS} dimensions needs at least {DIMS + 1} windows, got {n_windows}; "
                "use more symbols, a longer history or a smaller stride."
            )
        flat = values.reshape(n_windows, inputs)
        mean = flat.mean(axis=0)
        spread = flat.std(axis=0)
        spread = np.where(spread > 0.0, spread, 1.0)
        centred = (flat - mean) / spread
        variances, vectors = np.linalg.eigh(centred.T @ centred / (n_windows - 1))
        if variances[-DIMS] <= _RELATIVE_RANK * variances[-1]:
            raise MissingDataError(f"the windows span fewer than {DIMS} directions; use more symbols or a longer history.")
        components = vectors[:, ::-1][:, :DIMS].T
        largest = np.abs(components).argmax(axis=1)
        components = components * np.sign(components[np.arange(DIMS), largest])[:, None]
        self._fit = _Fit(shape=(shape[0], shape[1]), mean=mean, spread=spread, components=components)
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
            If the encoder is not fitted, or a value is NaN.
        ShapeError
            If the windows have another shape than the fitted ones.
        """
        fit = self._fitted()
        values = check_windows(windows)
        if values.shape[1:] != fit.shape:
            raise ShapeError(f"windows must have shape (n_windows, {fit.shape[0]}, {fit.shape[1]}), had {values.shape}.")
        scores = ((values.reshape(len(values), len(fit.mean)) - fit.mean) / fit.spread) @ fit.components.T
        length = np.linalg.norm(scores, axis=1, keepdims=True)
        embeddings: Embeddings = (scores / np.where(length > 0.0, length, 1.0)).astype(np.float32)
        return embeddings

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of name, version and fitted arrays.

        Raises
        ------
        MissingDataError
            If the encoder is not fitted.
        """
        fit = self._fitted()
        digest = hashlib.sha256(f"{self.name} {self.version} {fit.shape}".encode())
        for array in (fit.mean, fit.spread, fit.components):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise MissingDataError("the encoder is not fitted; call `fit(windows)` with windows of the training period first.")
        return self._fit
