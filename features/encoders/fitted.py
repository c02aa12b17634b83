"""What every encoder of this package does alike once it is fitted: name itself, save itself, load itself.

Hides where the fit is kept. An encoder adds `fit` and `encode`, and says in `_open` how it gets ready from a fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy.typing as npt

from core.errors import MissingDataError
from features.encoders.base import DIMS, WindowValues, training_end
from features.encoders.files import FittedState, load_state, save_state
from features.windows import Windows

_NOT_FITTED = "the encoder is not fitted; call `fit(windows)` with windows of the training period first."


@dataclass(frozen=True, eq=False)
class Fit:
    """Hold a fit as it is saved; an encoder adds what it made of it to encode."""

    state: FittedState


FitT = TypeVar("FitT", bound=Fit)


class FittedEncoder(ABC, Generic[FitT]):
    """Keep the fit of an encoder; whatever is asked before there is one raises MissingDataError."""

    name: ClassVar[str]
    version: ClassVar[str]
    dims = DIMS

    _fit: FitT | None = None

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of name, version, window shape and everything that was fitted and moves an embedding."""
        return self._fitted().state.sha256

    @property
    def trained_until(self) -> datetime | None:
        """End of the last window it was fitted on, in UTC; None when it was fitted on bare arrays."""
        return self._fitted().state.trained_until

    @property
    def window_shape(self) -> tuple[int, int]:
        """Bars and channels of a window."""
        return self._fitted().state.window_shape

    def save(self, path: Path) -> None:
        """Write everything that was fitted to one file."""
        save_state(path, self._fitted().state)

    @classmethod
    def load(cls, path: Path, *, sha256: str | None = None) -> Self:
        """Read what `save` wrote; with `sha256`, only if it is that very fit.

        Raises
        ------
        DataError
            If the file is not there, was changed, or is of another encoder or another fit.
        ConfigurationError
            If the encoder needs a package that is not installed.
        """
        return cls()._adopt(load_state(path, name=cls.name, version=cls.version, sha256=sha256))

    @abstractmethod
    def _open(self, state: FittedState) -> FitT:
        """Get ready to encode; DataError if the fit lacks what that needs."""

    def _adopt(self, state: FittedState) -> Self:
        self._fit = self._open(state)
        return self

    def _learn(
        self,
        windows: Windows | npt.ArrayLike,
        values: WindowValues,
        payload: Mapping[str, bytes],
        settings: Mapping[str, Any],
    ) -> Self:
        return self._adopt(
            FittedState(
                name=self.name,
                version=self.version,
                window_shape=(values.shape[1], values.shape[2]),
                trained_until=training_end(windows),
                payload=payload,
                settings={**settings, "n_windows": len(values)},
            )
        )

    def _fitted(self) -> FitT:
        if self._fit is None:
            raise MissingDataError(_NOT_FITTED)
        return self._fit


class TrainedEncoder(FittedEncoder[FitT]):
    """A fitted encoder that was trained in rounds."""

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean loss of each round of the training."""
        return tuple(self._fitted().state.settings["losses"])
