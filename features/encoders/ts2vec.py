"""TS2Vec: trained with torch, run without it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError, MissingDataError
from features.encoders.base import DIMS, Embeddings, check_windows, scale_to_unit
from features.encoders.contrastive import OnRound, TS2VecSettings, train_network
from features.encoders.files import FittedState, load_state, pack_array, require_parts
from features.encoders.fitted import Fit, TrainedEncoder
from features.encoders.graph import export_network
from features.encoders.sessions import Precision, RunBatch, open_network, run_batches
from features.windows import Windows

_MODEL, _CENTRE = "model.onnx", "centre"


@dataclass(frozen=True, eq=False)
class _Fit(Fit):
    centre: npt.NDArray[np.float32]
    run: RunBatch


class TS2VecEncoder(TrainedEncoder[_Fit]):
    """Encode windows by a dilated convolutional network that was trained by contrast.

    An embedding is the largest value of each of 320 outputs over the whole window, less its mean over the windows of the
    training, scaled to unit length. The convolutions look both ways, but never out of the window, which is known at
    its last bar.

    Parameters
    ----------
    settings : TS2VecSettings, optional
        Of the training; the authors' by default.
    precision : {"fp32", "bf16"}, default="fp32"
        bf16 needs torch and a processor that has it; embeddings are not those of fp32 to the last digits.
    threads : int, default=0
        Threads that encode; 0 for one a core. The result does not depend on it.

    Notes
    -----
    We deviate from Yue et al. (2022) by subtracting the mean: the largest of 128 values is large everywhere, so that
    without it all windows look alike to a cosine. `represent` is theirs.
    """

    name = "ts2vec"
    version = "1"

    def __init__(self, settings: TS2VecSettings | None = None, *, precision: Precision = "fp32", threads: int = 0) -> None:
        if precision not in ("fp32", "bf16"):
            raise ConfigurationError(f'`precision` must be "fp32" or "bf16", was {precision!r}.')
        if threads < 0:
            raise ConfigurationError(f"`threads` must be 0 (all cores) or more, was {threads}.")
        self.settings = settings or TS2VecSettings()
        self.precision: Precision = precision
        self.threads = threads

    def fit(
        self,
        windows: Windows | npt.ArrayLike,
        *,
        checkpoint: Path | None = None,
        on_round: OnRound | None = None,
    ) -> Self:
        """Train on windows of the training period; needs the extra ``ts2vec``.

        Parameters
        ----------
        windows : Windows or array-like of shape (n_windows, window, n_channels)
        checkpoint : Path, optional
            File to go on from after an interruption.
        on_round : callable, optional
            Called with a `TrainingRound` after every 50 batches.

        Raises
        ------
        ConfigurationError
            If torch, ts2vec or onnx is not installed.
        MissingDataError
            If there are fewer than two windows, a value is NaN, or a window is constant.
        DataError
            If the checkpoint is of another training.
        """
        values = check_windows(windows)
        trained = train_network(values, self.settings, checkpoint=checkpoint, on_round=on_round)
        model = export_network(trained, values.shape[1])
        run = open_network(model, "fp32")
        raw = run_batches(run, values, DIMS, precision="fp32", threads=self.threads)
        centre = raw.mean(axis=0, dtype=np.float64).astype(np.float32)
        payload = {_MODEL: model, _CENTRE: pack_array(centre)}
        return self._learn(windows, values, payload, {**asdict(self.settings), "losses": list(trained.losses)})

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
        return scale_to_unit(self.represent(windows) - self._fitted().centre)

    def represent(self, windows: Windows | npt.ArrayLike) -> Embeddings:
        """Return what the authors' `encode` pools over the full series, neither centred nor scaled.

        Parameters, shapes and errors are those of `encode`.
        """
        fit = self._fitted()
        values = check_windows(windows, fit.state.window_shape)
        return run_batches(fit.run, values, DIMS, precision=self.precision, threads=self.threads)

    @classmethod
    def load(cls, path: Path, *, sha256: str | None = None, precision: Precision = "fp32", threads: int = 0) -> Self:
        """Read what `save` wrote; needs neither torch nor ts2vec.

        Raises
        ------
        DataError
            If the file is not there, was changed, or is of another encoder or another fit.
        """
        state = load_state(path, name=cls.name, version=cls.version, sha256=sha256)
        return cls(precision=precision, threads=threads)._adopt(state)

    def _open(self, state: FittedState) -> _Fit:
        centre = require_parts(state, {_CENTRE: (DIMS,)})[_CENTRE]
        if _MODEL not in state.payload:
            raise MissingDataError("the file holds no network; fit the encoder again.")
        return _Fit(state=state, centre=centre, run=open_network(state.payload[_MODEL], self.precision))
