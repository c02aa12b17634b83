"""Files that outlast a run, named by their content.

Hides where bytes lie. Promises that an address always means the same bytes, that a file is whole or absent, and that no
address leads outside the bucket.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from core.errors import MissingDataError, StoreUnavailableError

_URI = re.compile(r"artifact://(?P<bucket>[a-z0-9-]+)/(?P<sha>[0-9a-f]{64})\.(?P<suffix>[a-z0-9]+)")

FEATURE_SNAPSHOTS = "feature-snapshots"


class ArtifactStore:
    """Keep content-addressed files under one folder.

    Parameters
    ----------
    folder : Path
        Created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, bucket: str, content: bytes, suffix: str) -> str:
        """Write bytes, once, and return their address; a file that was changed on disk is written anew.

        Raises
        ------
        StoreUnavailableError
            If the folder cannot be written.
        """
        sha = hashlib.sha256(content).hexdigest()
        uri = f"artifact://{bucket}/{sha}.{suffix}"
        path = self._path(uri)
        if path.is_file() and path.read_bytes() == content:
            return uri
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise StoreUnavailableError(
                f"the artifact folder {self._folder} cannot be written ({error.strerror}): free space or set AQF_HOME."
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink()
        return uri

    def has(self, uri: str) -> bool:
        """Tell whether the bytes of an address are here."""
        return self._path(uri).is_file()

    def load(self, uri: str) -> bytes:
        """Read the bytes of an address.

        Raises
        ------
        MissingDataError
            If there is no such file, or its content is not what the address says.
        """
        path = self._path(uri)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise MissingDataError(f"the artifact {uri} is not in {self._folder}.") from None
        if hashlib.sha256(content).hexdigest() != path.stem:
            raise MissingDataError(f"the artifact {path} was changed on disk: its content no longer has the hash in its name.")
        return content

    def _path(self, uri: str) -> Path:
        match = _URI.fullmatch(uri)
        if match is None:
            raise MissingDataError(f"an artifact's address is artifact://bucket/<sha256>.suffix, was {uri!r}.")
        return self._folder / match["bucket"] / match["sha"][:2] / f"{match['sha']}.{match['suffix']}"
