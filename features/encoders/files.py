"""One file for everything an encoder was fitted to: a zip archive of a header and arrays.

Hides how it is written and checked. Promises that nothing in it is executed, that equal fits give equal bytes, and that a
changed byte is refused before anything is parsed.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import DataError, MissingDataError, ShapeError
from core.provenance import canonical_json

_FORMAT = 1
_HEADER, _CHECKSUM = "header.json", "sha256"
_STAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedState:
    """Hold what an encoder learned, and when it stopped learning.

    Parameters
    ----------
    name, version : str
        Of the encoder.
    window_shape : tuple of int
        Bars and channels of a window.
    trained_until : datetime or None
        End of the last window it was fitted on.
    payload : mapping of str to bytes
        The fitted parts by name, as `pack_array` or a library writes them.
    settings : mapping, optional
        How it was fitted, in plain values; to be read by people, and no part of `sha256`.
    """

    name: str
    version: str
    window_shape: tuple[int, int]
    trained_until: datetime | None
    payload: Mapping[str, bytes]
    settings: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of name, version, shape and payload: the identity of the embeddings."""
        digest = hashlib.sha256(f"{self.name} {self.version} {self.window_shape}".encode())
        for part in sorted(self.payload):
            digest.update(f"\n{part} {len(self.payload[part])}\n".encode() + self.payload[part])
        return digest.hexdigest()


def pack_array(array: npt.NDArray[Any]) -> bytes:
    """Write an array in numpy's own format, little-endian."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")), allow_pickle=False)
    return buffer.getvalue()


def unpack_array(part: bytes) -> npt.NDArray[Any]:
    """Read what `pack_array` wrote."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(part), allow_pickle=False)
    return array


def save_state(path: Path, state: FittedState) -> None:
    """Write a fit to a file; the file is whole or not there."""
    header = canonical_json(
        {
            "format": _FORMAT,
            "name": state.name,
            "version": state.version,
            "window_shape": list(state.window_shape),
            "trained_until": None if state.trained_until is None else state.trained_until.isoformat(),
            "settings": dict(state.settings),
            "sha256": state.sha256,
        }
    ).encode()
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        members = {_CHECKSUM: _checksum(header, state.sha256), _HEADER: header, **state.payload}
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=_STAMP), content)
    partial.replace(path)


def load_state(path: Path, *, name: str | None = None, version: str | None = None, sha256: str | None = None) -> FittedState:
    """Read a fit from a file.

    Parameters
    ----------
    path : Path
    name, version : str, optional
        Of the encoder that must have written it.
    sha256 : str, optional
        The very fit it must hold, as `Encoder.sha256` said.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is not an encoder's file, was changed or cut short, or is of another encoder or another fit.
    """
    if not path.is_file():
        raise MissingDataError(f"there is no encoder file {path.name}; `save` an encoder there first.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        header_bytes, checksum = members.pop(_HEADER), members.pop(_CHECKSUM)
        header = json.loads(header_bytes)
        state = FittedState(
            name=header["name"],
            version=header["version"],
            window_shape=(header["window_shape"][0], header["window_shape"][1]),
            trained_until=None if header["trained_until"] is None else datetime.fromisoformat(header["trained_until"]),
            payload=members,
            settings=header["settings"],
        )
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, NotImplementedError, EOFError) as error:
        raise DataError(f"{path.name} is not an encoder's file, or was damaged: {error}; fetch or fit it again.") from error
    if checksum != _checksum(header_bytes, state.sha256) or header.get("sha256") != state.sha256:
        raise DataError(f"{path.name} is not what was saved: its SHA-256 does not fit its content; fetch or fit it again.")
    if header.get("format") != _FORMAT:
        raise DataError(f"{path.name} has format {header.get('format')}, this release reads {_FORMAT}; fit the encoder again.")
    if (name is not None and state.name != name) or (version is not None and state.version != version):
        raise DataError(
            f"{path.name} holds the encoder {state.name} {state.version}, not {name} {version}; "
            "use `load_encoder`, or fit again."
        )
    if sha256 is not None and state.sha256 != sha256:
        raise DataError(f"{path.name} holds the fit {state.sha256[:12]}, not {sha256[:12]}; load the file of that version.")
    return state


def require_parts(state: FittedState, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
    """Return arrays of a fit after comparing their shapes.

    Raises
    ------
    ShapeError
        If one is missing or has another shape.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part, shape in shapes.items():
        if part not in state.payload or (array := unpack_array(state.payload[part])).shape != shape:
            raise ShapeError(f"the fit of {state.name} must hold `{part}` of shape {shape}; fit the encoder again.")
        arrays[part] = array
    return arrays


def _checksum(header: bytes, sha256: str) -> bytes:
    return hashlib.sha256(header + sha256.encode()).hexdigest().encode()
