"""Finds an encoder by name."""

from __future__ import annotations

from core.errors import ConfigurationError
from features.encoders.base import Encoder
from features.encoders.pca import PCAEncoder

_LATER = ("minirocket", "ts2vec")


def get_encoder(name: str) -> Encoder:
    """Build an encoder, not fitted yet.

    Parameters
    ----------
    name : str
        ``"pca"``.

    Raises
    ------
    ConfigurationError
        If there is no such encoder in this release.
    """
    if name == "pca":
        return PCAEncoder()
    if name in _LATER:
        raise ConfigurationError(f'the encoder "{name}" comes with a later release; use "pca".')
    raise ConfigurationError(f'the encoder must be "pca", was {name!r}.')
