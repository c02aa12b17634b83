"""The members of the encoder contract, fitted in little time, and what they are tried on."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest

from features.encoders import Encoder, get_encoder
from features.encoders.causal import CausalTS2VecEncoder
from features.encoders.contrastive import TS2VecSettings
from features.encoders.minirocket import MiniRocketEncoder
from features.encoders.pca import PCAEncoder
from features.encoders.ts2vec import TS2VecEncoder
from features.windows import rolling_windows
from tests.features.panels import build_panel

PANEL = build_panel(900, 6, gaps=False)
WINDOWS = rolling_windows(PANEL)

TINY = TS2VecSettings(hidden=8, depth=3, iterations=4, seed=3)

HAS_TORCH = all(find_spec(package) for package in ("torch", "ts2vec", "onnx"))
HAS_SKTIME = find_spec("sktime") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="the extra ts2vec is not installed")
needs_sktime = pytest.mark.skipif(not HAS_SKTIME, reason="the extra minirocket is not installed")


@dataclass(frozen=True)
class Member:
    """How to build one encoder anew with a seed, and whether its embeddings depend on that seed."""

    name: str
    seeded: bool

    def build(self, seed: int = 3) -> Encoder:
        settings = TS2VecSettings(hidden=8, depth=3, iterations=4, seed=seed)
        if self.name == "ts2vec":
            return TS2VecEncoder(settings)
        if self.name == "ts2vec_causal":
            return CausalTS2VecEncoder(settings)
        if self.name == "minirocket":
            return MiniRocketEncoder(seed=seed)
        return PCAEncoder()

    def fitted(self) -> Encoder:
        """One that encodes: the shipped one where one ships."""
        if self.name.startswith("ts2vec"):
            return get_encoder(self.name)
        return self.build().fit(WINDOWS)


PCA = Member("pca", seeded=False)
MINIROCKET = Member("minirocket", seeded=True)
TS2VEC = Member("ts2vec", seeded=True)
CAUSAL = Member("ts2vec_causal", seeded=True)

ENCODING = [
    pytest.param(PCA, id="pca"),
    pytest.param(MINIROCKET, id="minirocket", marks=needs_sktime),
    pytest.param(TS2VEC, id="ts2vec"),
    pytest.param(CAUSAL, id="ts2vec_causal"),
]
FITTING = [
    pytest.param(PCA, id="pca"),
    pytest.param(MINIROCKET, id="minirocket", marks=needs_sktime),
    pytest.param(TS2VEC, id="ts2vec", marks=needs_torch),
    pytest.param(CAUSAL, id="ts2vec_causal", marks=needs_torch),
]


def broken(place: tuple[int, int, int], value: float) -> np.ndarray:
    values = WINDOWS.values[:8].copy()
    values[place] = value
    return values
