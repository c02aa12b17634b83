"""TS2Vec with convolutions over the past alone: a new bar costs one step instead of a whole window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError, DataError, MissingDataError, ShapeError
from features.encoders.base import DIMS, Embeddings, check_windows, scale_to_unit
from features.encoders.contrastive import OnRound, TrainedNetwork, TS2VecSettings, train_network
from features.encoders.files import FittedState, pack_array, unpack_array
from features.encoders.fitted import Fit, TrainedEncoder
from features.encoders.gelu import gelu
from features.windows import Windows

_CHUNK = 64
_DEFAULTS = TS2VecSettings(depth=4)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Layer:
    """An affine map of `taps` rows, `dilation` bars apart, the newest last; weight of shape (taps, n_in, n_out)."""

    weight: Array
    bias: Array
    dilation: int

    def apply(self, x: Array) -> Array:
        """Map (bars, n, n_in) to (bars - reach, n, n_out); bars first, so that each tap is one large product."""
        bars = len(x) - self.reach
        taps, n_in, n_out = self.weight.shape
        out: Array = x[self.reach :].reshape(-1, n_in) @ self.weight[-1] + self.bias
        for tap in range(taps - 1):
            start = tap * self.dilation
            out += x[start : start + bars].reshape(-1, n_in) @ self.weight[tap]
        return out.reshape(bars, -1, n_out)

    @property
    def reach(self) -> int:
        return self.dilation * (len(self.weight) - 1)


@dataclass(frozen=True, eq=False)
class _Network:
    entrance: _Layer
    hidden: tuple[tuple[_Layer, _Layer], ...]
    last: tuple[_Layer, _Layer, _Layer]
    centre: Array

    @property
    def reach(self) -> int:
        return sum(layer.reach for pair in self.hidden for layer in pair)


@dataclass(frozen=True, eq=False)
class _Fit(Fit):
    network: _Network


class CausalTS2VecEncoder(TrainedEncoder[_Fit]):
    """Encode windows by a causal dilated network that was trained by contrast, as a batch or bar by bar.

    The network is TS2Vec's with each convolution moved to end at its own bar, and with a pointwise last block. An output
    sees 1 + 4 (2**depth - 1) bars; an embedding is the largest value of each of 320 outputs over those bars of the window
    whose whole reach lies inside it, less its mean over the training, scaled to unit length. So it depends on the window
    and nothing else, and `stream` gives the same numbers from one new bar at a time.

    A stream needs channels that do not depend on where a window starts: fit it on `steady_windows`, not `rolling_windows`.

    Parameters
    ----------
    settings : TS2VecSettings, optional
        Of the training; by default the authors' with a depth of 4, whose outputs see 61 bars.
    """

    name = "ts2vec_causal"
    version = "1"

    def __init__(self, settings: TS2VecSettings | None = None) -> None:
        self.settings = settings or _DEFAULTS

    def fit(
        self,
        windows: Windows | npt.ArrayLike,
        *,
        checkpoint: Path | None = None,
        on_round: OnRound | None = None,
    ) -> Self:
        """Train on windows of the training period; needs the extra ``ts2vec``.

        Parameters and errors are those of `TS2VecEncoder.fit`.

        Raises
        ------
        ConfigurationError
            Also if the network sees more bars than a window has.
        """
        values = check_windows(windows)
        reach = 4 * (2**self.settings.depth - 1)
        if reach >= values.shape[1]:
            raise ConfigurationError(
                f"with depth {self.settings.depth} an output sees {reach + 1} bars, a window has {values.shape[1]}; "
                "use a smaller depth or longer windows."
            )
        trained = train_network(values, self.settings, causal=True, checkpoint=checkpoint, on_round=on_round)
        payload = _pack(trained)
        centre = _represent(_unpack(payload), values).mean(axis=0, dtype=np.float64)
        payload["centre"] = pack_array(centre.astype(np.float32))
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
        fit = self._fitted()
        values = check_windows(windows, fit.state.window_shape)
        return scale_to_unit(_represent(fit.network, values) - fit.network.centre)

    def stream(self, n_series: int) -> EmbeddingStream:
        """Return a stream over several series, which starts without history.

        Raises
        ------
        ConfigurationError
            If there is no series.
        """
        fit = self._fitted()
        return EmbeddingStream(fit.network, fit.state.window_shape, n_series)

    def _open(self, state: FittedState) -> _Fit:
        try:
            return _Fit(state=state, network=_unpack(state.payload))
        except (KeyError, ValueError) as error:
            raise DataError(
                f"the fit of {self.name} does not hold a causal network: {error}; fit the encoder again."
            ) from error


class EmbeddingStream:
    """Take one new bar of several series at a time, and give the embedding of the window that ends there.

    Each convolution keeps the few bars it looks back on, and the pool the outputs of a window: the work and the memory of a
    bar do not depend on how many came before. Made by `CausalTS2VecEncoder.stream`.
    """

    def __init__(self, network: _Network, window_shape: tuple[int, int], n_series: int) -> None:
        if n_series < 1:
            raise ConfigurationError(f"`n_series` must be at least 1, was {n_series}.")
        self._network = network
        self._window, self._n_channels = window_shape
        self._shape = (n_series, self._n_channels)
        self._hidden = [(_Memory(first, n_series), _Memory(second, n_series)) for first, second in network.hidden]
        self._pool = _SlidingMax(self._window - network.reach, (n_series, DIMS))
        self._before = np.full(self._shape, np.nan, dtype=np.float32)
        self._still = np.zeros(n_series, dtype=np.int64)
        self._bars = 0

    def update(self, bars: npt.ArrayLike) -> Embeddings | None:
        """Take the next bar of every series.

        Parameters
        ----------
        bars : array-like of shape (n_series, n_channels)
            Channels of the bar that has just closed.

        Returns
        -------
        ndarray of shape (n_series, 320), float32, or None
            What `encode` gives for the windows that end at this bar; NaN for a series that has not moved in its window.
            None while there is not enough history.

        Raises
        ------
        ShapeError
            If the shape is another; the stream is as before.
        MissingDataError
            If a value is NaN; the stream is as before.
        """
        x = np.asarray(bars, dtype=np.float32)
        if x.shape != self._shape:
            raise ShapeError(f"a bar must have shape (n_series, n_channels) = {self._shape}, had {x.shape}.")
        if not np.isfinite(x).all():
            raise MissingDataError("a bar must be free of NaN and infinity; start a new stream after a gap.")
        self._still = np.where((x == self._before).all(axis=1), self._still + 1, 0)
        self._before = x.copy()
        network = self._network
        x = x @ network.entrance.weight[0] + network.entrance.bias
        for first, second in self._hidden:
            x = x + second.step(gelu(first.step(gelu(x))))
        inner, outer, projector = network.last
        y = gelu(gelu(x) @ inner.weight[0] + inner.bias) @ outer.weight[0] + outer.bias
        largest = self._pool.step(y + (x @ projector.weight[0] + projector.bias))
        self._bars += 1
        if self._bars < self._window:
            return None
        embeddings = scale_to_unit(largest - network.centre)
        embeddings[self._still >= self._window - 1] = np.nan
        return embeddings


class _Memory:
    """The bars that one convolution looks back on, in a ring."""

    def __init__(self, layer: _Layer, n_series: int) -> None:
        taps, n_in, n_out = layer.weight.shape
        self._layer = layer
        self._weight = layer.weight.reshape(taps * n_in, n_out)
        self._ring = np.zeros((layer.reach + 1, n_series, n_in), dtype=np.float32)
        self._seen = np.zeros((n_series, taps, n_in), dtype=np.float32)
        self._place = 0

    def step(self, x: Array) -> Array:
        ring, dilation, place = self._ring, self._layer.dilation, self._place
        ring[place] = x
        self._seen[:, 0] = ring[place - 2 * dilation]
        self._seen[:, 1] = ring[place - dilation]
        self._seen[:, 2] = x
        self._place = (place + 1) % len(ring)
        out: Array = self._seen.reshape(len(x), -1) @ self._weight + self._layer.bias
        return out


class _SlidingMax:
    """The largest of the last `length` values, by blocks (van Herk, 1992): about three comparisons a value.

    At the end of a block the maxima of its tails are kept; the largest of the last `length` values is that of a tail of the
    block before and of the running maximum of this one.
    """

    def __init__(self, length: int, shape: tuple[int, int]) -> None:
        self._block = np.full((length, *shape), -np.inf, dtype=np.float32)
        self._tails = np.full((length + 1, *shape), -np.inf, dtype=np.float32)
        self._running = np.full(shape, -np.inf, dtype=np.float32)
        self._place = 0

    def step(self, x: Array) -> Array:
        self._block[self._place] = x
        np.maximum(self._running, x, out=self._running)
        self._place += 1
        largest: Array = np.maximum(self._running, self._tails[self._place])
        if self._place == len(self._block):
            for place in range(self._place - 1, -1, -1):
                np.maximum(self._block[place], self._tails[place + 1], out=self._tails[place])
            self._running[:] = -np.inf
            self._place = 0
        return largest


def _represent(network: _Network, values: npt.NDArray[np.floating]) -> Array:
    out = np.empty((len(values), DIMS), dtype=np.float32)
    inner, outer, projector = network.last
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        x = network.entrance.apply(np.ascontiguousarray(values[part].transpose(1, 0, 2), dtype=np.float32))
        for first, second in network.hidden:
            y = second.apply(gelu(first.apply(gelu(x))))
            x = y + x[-len(y) :]
        out[part] = (outer.apply(gelu(inner.apply(gelu(x)))) + projector.apply(x)).max(axis=0)
    return out


def _pack(trained: TrainedNetwork) -> dict[str, bytes]:
    def numbers(parameter: Any) -> npt.NDArray[np.float64]:
        array: npt.NDArray[np.float64] = parameter.detach().cpu().double().numpy()
        return array

    def put(name: str, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
        payload[f"{name}.weight"] = pack_array(weight.astype(np.float32))
        payload[f"{name}.bias"] = pack_array(bias.astype(np.float32))

    payload: dict[str, bytes] = {}
    *hidden, last = trained.network.feature_extractor.net
    weight = numbers(trained.network.input_fc.weight) / trained.spread
    put("entrance", weight.T[None], numbers(trained.network.input_fc.bias) - weight @ trained.mean)
    named = {f"{i}.{part}": getattr(block, part)[1] for i, block in enumerate(hidden) for part in ("conv1", "conv2")}
    named |= {f"last.{part}": getattr(last, part) for part in ("conv1", "conv2", "projector")}
    for name, convolution in named.items():
        put(name, numbers(convolution.weight).transpose(2, 1, 0), numbers(convolution.bias))
    payload["centre"] = pack_array(np.zeros(DIMS, dtype=np.float32))
    return payload


def _unpack(payload: Mapping[str, bytes]) -> _Network:
    def layer(name: str, dilation: int = 1) -> _Layer:
        return _Layer(unpack_array(payload[f"{name}.weight"]), unpack_array(payload[f"{name}.bias"]), dilation)

    depth = sum(name.endswith(".conv1.weight") for name in payload) - 1
    return _Network(
        entrance=layer("entrance"),
        hidden=tuple((layer(f"{i}.conv1", 2**i), layer(f"{i}.conv2", 2**i)) for i in range(depth)),
        last=(layer("last.conv1"), layer("last.conv2"), layer("last.projector")),
        centre=unpack_array(payload["centre"]),
    )
