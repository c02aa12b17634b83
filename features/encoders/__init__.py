"""Encoders: a window of bars in, 320 numbers out, behind one protocol."""

from features.encoders.base import DIMS, Encoder
from features.encoders.registry import get_encoder, load_encoder

__all__ = ["DIMS", "Encoder", "get_encoder", "load_encoder"]
