"""What a version of the vector memory consists of: its encoder, its windows, its name.

Promises that a version's name holds everything its rows depend on, so that two versions never share rows and the same
request always means the same version; and that no encoder is used on data whose hold-out it may have learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Self

from core.errors import ConfigurationError, DataError, LookAheadError, MissingDataError, ShapeError
from core.market.panel import Panel
from core.store.records import Dataset
from features.encoders import Encoder, get_encoder
from features.encoders.registry import ENCODERS, PRETRAINED
from features.nearest_windows import one_blas_thread
from features.windows import Windows, rolling_windows, steady_windows

EMB_TYPE = "window"
"""Type of the memory's rows in `signal_embeddings`; of each data set one version of it is active at a time."""

LABEL_HORIZON = 5
"""Bars of the forward return that each window remembers."""

TRAINED_FRACTION = 0.6
"""Share of the bars before the seal that encoders learn from; what comes after remains to judge them by."""

_SHIPPED = "ts2vec"
_FALLBACK = "pca"
_CUTS: Mapping[str, Callable[..., Windows]] = {"ts2vec_causal": steady_windows}


@dataclass(frozen=True, kw_only=True)
class MemorySpec:
    """Say how windows are cut and encoded.

    Parameters
    ----------
    encoder : str, default="auto"
        A name that `get_encoder` knows. ``"auto"`` takes the shipped TS2Vec wherever it may be used: for windows of its own
        length, on data that is sealed after its training ended; else PCA, fitted on the first three fifths of the bars.
    window, stride : int, default=128, 5
        Bars in a window, and between the starts of two.

    Raises
    ------
    ConfigurationError
        If there is no such encoder.
    DataError
        If a number is out of bounds.
    """

    encoder: str = "auto"
    window: int = 128
    stride: int = 5

    def __post_init__(self) -> None:
        if self.encoder not in ("auto", *ENCODERS):
            raise ConfigurationError(f"the encoder must be one of auto, {', '.join(sorted(ENCODERS))}, was {self.encoder!r}.")
        for name, value in (("window", self.window), ("stride", self.stride)):
            lowest = 2 if name == "window" else 1
            if type(value) is not int or not lowest <= value <= 10_000:
                raise DataError(f"`{name}` must be a number of bars in {lowest}..10000, was {value!r}.")

    @classmethod
    def from_mapping(cls, wanted: object) -> Self:
        """Read what a request asks for.

        Raises
        ------
        DataError
            If it is no mapping, names something else than encoder, window and stride, or a number is out of bounds.
        ConfigurationError
            If there is no such encoder.
        """
        if not isinstance(wanted, Mapping):
            raise DataError(f"a request for windows is an object with encoder, window and stride, was {wanted!r}.")
        unknown = sorted(set(wanted) - {"encoder", "window", "stride"})
        if unknown:
            raise DataError(f"a request for windows has encoder, window and stride, not {', '.join(unknown)}.")
        return cls(**wanted)


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryPlan:
    """Hold everything that the rows of one version follow from.

    Parameters
    ----------
    version : str
        Its name: encoder and fit, window, stride, horizon of the label, data set and its version.
    panel : Panel
        The bars that may be seen.
    windows : Windows
        All windows of the version, in their order.
    trained_until : datetime
        UTC; windows that end then or before are in-sample.
    n_left_out : int
        Windows that were not cut because a close is missing or none moves.
    """

    version: str
    dataset: Dataset
    panel: Panel
    spec: MemorySpec
    encoder: Encoder
    windows: Windows
    trained_until: datetime
    n_left_out: int

    @property
    def settings(self) -> dict[str, Any]:
        """How the windows are made, in plain values, as `MemorySpec.from_mapping` reads them."""
        return {"encoder": self.encoder.name, "window": self.spec.window, "stride": self.spec.stride}


def plan_memory(dataset: Dataset, panel: Panel, spec: MemorySpec) -> MemoryPlan:
    """Choose the encoder, fit it if it is to be fitted, and cut the windows.

    Parameters
    ----------
    dataset : Dataset
    panel : Panel
        All its symbols, before the seal.
    spec : MemorySpec

    Raises
    ------
    MissingDataError
        If there is not enough history for a window, or for a fit.
    ShapeError
        If a trained encoder takes windows of another length.
    LookAheadError
        If a trained encoder learned from days that are sealed here.
    DataError
        If the file of a shipped encoder was changed.
    ConfigurationError
        If the encoder needs a package that is not installed.
    """
    encoder = _choose_encoder(dataset, spec)
    cut = partial(_CUTS.get(encoder.name, rolling_windows), window=spec.window, stride=spec.stride)
    windows = cut(panel)
    if not len(windows):
        raise MissingDataError(
            f"not enough history: none of the {panel.n_assets} symbols of {dataset.name} has {spec.window} complete closes in "
            f"a row that move, in {panel.n_bars} bars before the seal; take a shorter window or a longer history."
        )
    if encoder.name not in PRETRAINED:
        with one_blas_thread():  # threads share out sums, which moves last digits, and with them the name of the fit
            encoder.fit(cut(panel.slice(stop=int(panel.n_bars * TRAINED_FRACTION))))
    assert encoder.trained_until is not None
    possible = len(range(0, panel.n_bars - spec.window + 1, spec.stride)) * panel.n_assets
    cutting = f"w{spec.window}-s{spec.stride}-h{LABEL_HORIZON}"
    return MemoryPlan(
        version=f"{encoder.name}-{encoder.version}-{encoder.sha256[:12]}-{cutting}-{dataset.name}-v{dataset.version}",
        dataset=dataset,
        panel=panel,
        spec=spec,
        encoder=encoder,
        windows=windows,
        trained_until=encoder.trained_until,
        n_left_out=possible - len(windows),
    )


def _choose_encoder(dataset: Dataset, spec: MemorySpec) -> Encoder:
    name = _SHIPPED if spec.encoder == "auto" else spec.encoder
    encoder = get_encoder(name)
    problem = _find_problem(encoder, dataset, spec) if name in PRETRAINED else None
    if problem is None:
        return encoder
    if spec.encoder == "auto":
        return get_encoder(_FALLBACK)
    raise problem


def _find_problem(encoder: Encoder, dataset: Dataset, spec: MemorySpec) -> DataError | None:
    """Return why a trained encoder cannot be used, if it cannot."""
    assert encoder.trained_until is not None
    bars = encoder.window_shape[0]
    if spec.window != bars:
        return ShapeError(f"the encoder {encoder.name} takes windows of {bars} bars, was asked for {spec.window}.")
    if encoder.trained_until >= dataset.sealed_from:
        return LookAheadError(
            f"the encoder {encoder.name} learned from prices until {encoder.trained_until:%Y-%m-%d}, but {dataset.name} is "
            f"sealed from {dataset.sealed_from:%Y-%m-%d}: it may know the hold-out. Use the encoder pca, which is fitted on "
            "bars before the seal."
        )
    return None
