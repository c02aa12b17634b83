"""Train a TS2Vec network with the authors' package: seeds, checkpoints, early stop.

Hides torch, which is imported when a training starts. Promises that the same settings on the same windows give the same
network on the same machine, whether or not the training was interrupted.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError, DataError, MissingDataError
from core.provenance import canonical_json
from features.encoders.base import DIMS, WindowValues

if TYPE_CHECKING:
    import torch

_WINDOWS_MIN = 2
_STREAMS = {"shuffle": 1, "step": 2, "start": 3}


@dataclass(frozen=True, kw_only=True)
class TS2VecSettings:
    """Settings of a training; the defaults are the authors', but for early stop.

    Parameters
    ----------
    hidden : int, default=64
        Width of the hidden convolutions.
    depth : int, default=10
        Hidden blocks; block ``i`` has dilation ``2**i``.
    iterations : int, default=600
        Most batches to learn from (the authors': 200 up to 100,000 values of training data, 600 above).
    batch_size : int, default=16
    learning_rate : float, default=0.001
    patience : int or None, default=None
        Stop after this many rounds of 50 batches whose mean loss is no new minimum; None never stops early.
    seed : int, default=0
    """

    hidden: int = 64
    depth: int = 10
    iterations: int = 600
    batch_size: int = 16
    learning_rate: float = 0.001
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "depth", "iterations", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"`{name}` must be at least 1, was {getattr(self, name)}.")
        if not 0.0 < self.learning_rate < 1.0:
            raise ConfigurationError(f"`learning_rate` must be between 0 and 1, was {self.learning_rate}.")
        if self.patience is not None and self.patience < 1:
            raise ConfigurationError(f"`patience` must be at least 1 round or None, was {self.patience}.")


@dataclass(frozen=True, kw_only=True)
class TrainingRound:
    """What a training says after each round: batches done, of how many at most, and the mean loss of the round."""

    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """Hold the averaged torch network, the scale of its inputs, and the mean loss of each round."""

    network: Any
    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    losses: tuple[float, ...]


ROUND = 50

OnRound = Callable[[TrainingRound], None]


def train_network(
    values: WindowValues,
    settings: TS2VecSettings,
    *,
    causal: bool = False,
    checkpoint: Path | None = None,
    on_round: OnRound | None = None,
) -> TrainedNetwork:
    """Train on windows by hierarchical contrast.

    Parameters
    ----------
    values : ndarray of shape (n_windows, window, n_channels)
        Windows of the training period, as `check_windows` returned them. Each channel is standardised over all of them.
    settings : TS2VecSettings
    causal : bool, default=False
        Convolve over the past alone instead of both sides, with a pointwise last block.
    checkpoint : Path, optional
        File that is rewritten after each round; a training finds its own there and goes on from it.
    on_round : callable, optional
        Called with a `TrainingRound` after each.

    Returns
    -------
    TrainedNetwork
        The average of the network over all iterations, as the authors use it.

    Raises
    ------
    ConfigurationError
        If torch or ts2vec is not installed.
    MissingDataError
        If there are fewer than two windows.
    DataError
        If the checkpoint is of another training, or cannot be read.

    Notes
    -----
    Network, loss and random crops are those of [1]_, from their package; shuffling is ours, so that each batch is drawn from
    the seed and its number alone, and a resumed training goes on exactly as it would have. It runs on CUDA where there
    is a device. Numpy's global generator, which the package draws its masks from, is put back afterwards.

    References
    ----------
    .. [1] Yue, Z. et al. (2022). TS2Vec: Towards universal representation of time series. AAAI 36(8), 8980-8987.
    """
    torch = import_torch()
    if len(values) < _WINDOWS_MIN:
        raise MissingDataError(
            f"TS2Vec needs at least {_WINDOWS_MIN} windows, got {len(values)}; windows longer than the history leave none."
        )
    mean = values.mean(axis=(0, 1), dtype=np.float64)
    spread = values.std(axis=(0, 1), dtype=np.float64)
    spread = np.where(spread > 0.0, spread, 1.0)
    scaled = ((values - mean) / spread).astype(np.float32)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _own_chance(torch):
        _seed(torch, settings.seed, _STREAMS["start"], 0)
        training = _Training(build_network(values.shape[2], settings, causal=causal), settings, device)
        identity = _identity(scaled, settings, causal)
        if checkpoint is not None and checkpoint.is_file():
            training.restore(checkpoint, identity)
        while not training.finished:
            for _ in range(min(ROUND, settings.iterations - training.iteration)):
                training.step(scaled)
            training.close_round()
            if checkpoint is not None:
                training.keep(checkpoint, identity)
            if on_round is not None:
                said = TrainingRound(iteration=training.iteration, iterations=settings.iterations, loss=training.losses[-1])
                on_round(said)
    network = training.averaged.module.cpu().eval()
    return TrainedNetwork(network=network, mean=mean, spread=spread, losses=tuple(training.losses))


def import_torch() -> Any:
    """Return the torch module.

    Raises
    ------
    ConfigurationError
        If torch, ts2vec or onnx is not installed.
    """
    missing = [package for package in ("torch", "ts2vec", "onnx") if find_spec(package) is None]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} must be installed for this: pip install 'agentic-quantitative-framework[ts2vec]'. "
            "Encoding with a fitted encoder needs none of them."
        )
    import torch

    return torch


def build_network(n_channels: int, settings: TS2VecSettings, *, causal: bool = False) -> Any:
    """Return the package's untrained network; when causal, with its convolutions turned to the past."""
    import torch
    from ts2vec.models import TSEncoder

    network = TSEncoder(input_dims=n_channels, output_dims=DIMS, hidden_dims=settings.hidden, depth=settings.depth)
    if causal:
        for block in network.feature_extractor.net[:-1]:
            for name in ("conv1", "conv2"):
                conv = getattr(block, name).conv
                conv.padding = (0,)
                setattr(block, name, torch.nn.Sequential(torch.nn.ConstantPad1d((2 * conv.dilation[0], 0), 0.0), conv))
        last = network.feature_extractor.net[-1]
        for name in ("conv1", "conv2"):
            conv = getattr(last, name).conv
            setattr(last, name, torch.nn.Conv1d(conv.in_channels, conv.out_channels, 1))
    return network


class _Training:
    """Everything that moves during a training."""

    def __init__(self, network: Any, settings: TS2VecSettings, device: torch.device) -> None:
        import torch

        self.settings = settings
        self.device = device
        self.network = network.to(device).train()
        self.averaged = torch.optim.swa_utils.AveragedModel(self.network)
        self.averaged.update_parameters(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate)
        self.iteration = 0
        self.losses: list[float] = []
        self._round: list[float] = []

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        tired = patience is not None and len(self.losses) - 1 - int(np.argmin(self.losses or [0.0])) >= patience
        return tired or self.iteration >= self.settings.iterations

    def step(self, scaled: npt.NDArray[np.float32]) -> None:
        import torch
        from ts2vec.models.losses import hierarchical_contrastive_loss
        from ts2vec.utils import take_per_row

        size = min(self.settings.batch_size, len(scaled))
        epoch, place = divmod(self.iteration, len(scaled) // size)
        order = np.random.default_rng([self.settings.seed, _STREAMS["shuffle"], epoch]).permutation(len(scaled))
        x = torch.from_numpy(scaled[order[place * size : (place + 1) * size]]).to(self.device)
        rng = _seed(torch, self.settings.seed, _STREAMS["step"], self.iteration)
        bars = x.size(1)
        length = int(rng.integers(2, bars + 1))
        left = int(rng.integers(bars - length + 1))
        right = left + length
        outer_left = int(rng.integers(left + 1))
        outer_right = int(rng.integers(right, bars + 1))
        offset = rng.integers(-outer_left, bars - outer_right + 1, size=size)
        self.optimizer.zero_grad()
        first = self.network(take_per_row(x, offset + outer_left, right - outer_left))[:, -length:]
        second = self.network(take_per_row(x, offset + left, outer_right - left))[:, :length]
        loss = hierarchical_contrastive_loss(first, second)
        loss.backward()
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        self.iteration += 1
        self._round.append(float(loss.item()))

    def close_round(self) -> None:
        loss = float(np.mean(self._round))
        if not np.isfinite(loss):
            raise DataError(f"the loss became {loss} after {self.iteration} batches; lower `learning_rate`.")
        self.losses.append(loss)
        self._round = []

    def keep(self, path: Path, identity: str) -> None:
        import torch

        partial = path.with_name(path.name + ".partial")
        torch.save(
            {
                "identity": identity,
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "iteration": self.iteration,
                "losses": self.losses,
            },
            partial,
        )
        partial.replace(path)

    def restore(self, path: Path, identity: str) -> None:
        import torch

        unreadable = f"the checkpoint {path.name} cannot be read; remove it to start anew."
        if not zipfile.is_zipfile(path):
            raise DataError(unreadable)
        try:
            kept = torch.load(path, map_location=self.device, weights_only=True)
        except RuntimeError as error:
            raise DataError(unreadable) from error
        if kept["identity"] != identity:
            raise DataError(f"the checkpoint {path.name} is of other windows or settings; remove it to start anew.")
        self.network.load_state_dict(kept["network"])
        self.averaged.load_state_dict(kept["averaged"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.iteration = kept["iteration"]
        self.losses = kept["losses"]


def _identity(scaled: npt.NDArray[np.float32], settings: TS2VecSettings, causal: bool) -> str:
    digest = hashlib.sha256(canonical_json({**asdict(settings), "causal": causal, "shape": list(scaled.shape)}).encode())
    digest.update(np.ascontiguousarray(scaled).tobytes())
    return digest.hexdigest()


@contextmanager
def _own_chance(torch: Any) -> Iterator[None]:
    before = np.random.get_state()  # noqa: NPY002  the package draws its masks from this generator
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _seed(torch: Any, *key: int) -> np.random.Generator:
    rng = np.random.default_rng(key)
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    torch.manual_seed(int(rng.integers(2**63)))
    return rng
