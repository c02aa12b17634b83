"""Finds an encoder by name, the one that ships, and the one that wrote a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigurationError, DataError
from features.encoders.base import Encoder
from features.encoders.causal import CausalTS2VecEncoder
from features.encoders.files import load_state
from features.encoders.minirocket import MiniRocketEncoder
from features.encoders.pca import PCAEncoder
from features.encoders.ts2vec import TS2VecEncoder

ENCODERS: Mapping[str, type[PCAEncoder] | type[MiniRocketEncoder] | type[TS2VecEncoder] | type[CausalTS2VecEncoder]] = {
    encoder.name: encoder for encoder in (PCAEncoder, MiniRocketEncoder, TS2VecEncoder, CausalTS2VecEncoder)
}
_SHIPPED = Path(__file__).with_name("pretrained")
PRETRAINED: Mapping[str, str] = {
    "ts2vec": "0919d346874d2d2b6bd1ef95d7c1f5519ba7d7a7591fea5746403d7d4fc33c69",
    "ts2vec_causal": "bd4a70010b4db73e304bce379c8ab5ca8d99b73d0585c7dc0349795977ecf37b",
}
"""SHA-256 of each encoder that ships, trained on the first years of sp500_20."""


def get_encoder(name: str) -> Encoder:
    """Build an encoder.

    Parameters
    ----------
    name : str
        ``"ts2vec"`` and ``"ts2vec_causal"`` come trained, for windows of 128 bars and three channels of the data set
        sp500_20 (docs/models); they need neither torch nor a `fit`, which trains them anew. ``"pca"`` and
        ``"minirocket"`` are to be fitted first.

    Returns
    -------
    Encoder
        Its `trained_until` says until when what it encodes is in-sample.

    Raises
    ------
    ConfigurationError
        If there is no such encoder.
    DataError
        If the file of one that ships was changed.
    """
    if name not in ENCODERS:
        raise ConfigurationError(f"the encoder must be one of {', '.join(sorted(ENCODERS))}, was {name!r}.")
    encoder = ENCODERS[name]
    if name not in PRETRAINED:
        return encoder()
    return encoder.load(_SHIPPED / f"{name}-sp500_20.encoder", sha256=PRETRAINED[name])


def load_encoder(path: Path, *, sha256: str | None = None) -> Encoder:
    """Load whichever encoder wrote a file.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        The very fit it must hold, for instance `embedding_versions.encoder_sha256`.

    Raises
    ------
    DataError
        If the file is not there, is no encoder's, was changed, or holds another fit.
    ConfigurationError
        If the encoder needs a package that is not installed.
    """
    state = load_state(path, sha256=sha256)
    if state.name not in ENCODERS:
        raise DataError(f"{path.name} holds the encoder {state.name}, which this release does not have.")
    return ENCODERS[state.name].load(path, sha256=sha256)
