"""Leading principal components of standardised inputs: how 320 numbers are made of more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError
from features.encoders.base import DIMS, Embeddings, scale_to_unit
from features.encoders.files import FittedState, pack_array, require_parts

_RELATIVE_RANK = 1e-10


@dataclass(frozen=True, eq=False)
class Projection:
    """Hold means, spreads and components over which inputs are projected.

    The sign of a component is fixed by making its largest loading positive.
    """

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    components: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, inputs: npt.NDArray[np.float64]) -> Self:
        """Learn from inputs of shape (n_windows, n_inputs), with at least 320 inputs.

        Raises
        ------
        MissingDataError
            If there are fewer than 321 windows, or they span fewer than 320 directions.
        """
        n_windows = len(inputs)
        if n_windows <= DIMS:
            raise MissingDataError(
                f"PCA to {DIMS} dimensions needs at least {DIMS + 1} windows, got {n_windows}; "
                "use more symbols, a longer history or a smaller stride."
            )
        mean = inputs.mean(axis=0)
        spread = inputs.std(axis=0)
        spread = np.where(spread > 0.0, spread, 1.0)
        centred = (inputs - mean) / spread
        variances, vectors = np.linalg.eigh(centred.T @ centred / (n_windows - 1))
        if variances[-DIMS] <= _RELATIVE_RANK * variances[-1]:
            raise MissingDataError(f"the windows span fewer than {DIMS} directions; use more symbols or a longer history.")
        components = vectors[:, ::-1][:, :DIMS].T
        largest = np.abs(components).argmax(axis=1)
        components = components * np.sign(components[np.arange(DIMS), largest])[:, None]
        return cls(mean=mean, spread=spread, components=components)

    def apply(self, inputs: npt.NDArray[np.floating]) -> Embeddings:
        """Project inputs of shape (n_windows, n_inputs) and scale them to unit length; the mean becomes a row of zeros."""
        return scale_to_unit(((inputs - self.mean) / self.spread) @ self.components.T)

    def pack(self) -> dict[str, bytes]:
        """Write the arrays as parts of a fit."""
        return {name: pack_array(getattr(self, name)) for name in ("mean", "spread", "components")}

    @classmethod
    def unpack(cls, state: FittedState, n_inputs: int) -> Self:
        """Read the arrays from the parts of a fit.

        Raises
        ------
        ShapeError
            If they are missing, or for another number of inputs.
        """
        shapes: Mapping[str, tuple[int, ...]] = {
            "mean": (n_inputs,),
            "spread": (n_inputs,),
            "components": (DIMS, n_inputs),
        }
        return cls(**require_parts(state, shapes))
