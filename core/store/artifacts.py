"""Files that outlast a run, named by their content: in two buckets, on disk here and in Supabase Storage in `storage.py`.

Hides where bytes lie. Promises that an address always means the same bytes, that a file is whole or absent, that no
address leads outside the bucket, and that a link opens one file for a limited time.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from core.errors import ConfigurationError, MissingDataError, StoreError, StoreUnavailableError
from core.store.links import LinkSigner

FEATURE_SNAPSHOTS = "feature-snapshots"
MODEL_ARTIFACTS = "model-artifacts"
BUCKETS = (FEATURE_SNAPSHOTS, MODEL_ARTIFACTS)
MAX_BYTES = 50 * 2**20
"""Size limit of an artifact; that of both buckets in Supabase Storage too."""

_URI = re.compile(rf"artifact://(?P<bucket>{'|'.join(BUCKETS)})/(?P<sha>[0-9a-f]{{64}})\.(?P<suffix>[a-z0-9]{{1,16}})")


@runtime_checkable
class ArtifactStore(Protocol):
    """Keep content-addressed files.

    Raises
    ------
    MissingDataError
        An address is none, nothing is there, or what is there is not what the address says.
    StoreUnavailableError
        The place cannot be reached, read or written.
    """

    def save(self, bucket: str, content: bytes, suffix: str) -> str:
        """Write bytes, whole or not at all, and return their address; a StoreError if they are over the limit."""
        ...

    def has(self, uri: str) -> bool:
        """Tell whether the bytes of an address are here."""
        ...

    def load(self, uri: str) -> bytes:
        """Read the bytes of an address."""
        ...

    def link(self, uri: str, *, seconds: int) -> str:
        """Return a link that opens the bytes of an address to whoever has it, for so many seconds."""
        ...


@dataclass(frozen=True, kw_only=True)
class Address:
    """The parts of an artifact's address."""

    bucket: str
    sha256: str
    suffix: str

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read an address.

        Raises
        ------
        MissingDataError
            If it is none.
        """
        match = _URI.fullmatch(uri)
        if match is None:
            raise MissingDataError(
                f"an artifact's address is artifact://bucket/<sha256>.suffix and a bucket of {', '.join(BUCKETS)}, was {uri!r}."
            )
        return cls(bucket=match["bucket"], sha256=match["sha"], suffix=match["suffix"])

    @classmethod
    def of(cls, bucket: str, content: bytes, suffix: str) -> Address:
        """Return the address of bytes that are to be kept.

        Raises
        ------
        MissingDataError
            If the bucket or the suffix is none.
        StoreError
            If there are too many of them.
        """
        if len(content) > MAX_BYTES:
            raise StoreError(f"an artifact must have at most {MAX_BYTES:,} bytes, has {len(content):,}: save it in parts.")
        return cls.parse(f"artifact://{bucket}/{hashlib.sha256(content).hexdigest()}.{suffix}")

    @property
    def path(self) -> str:
        """Where it lies in its bucket."""
        return f"{self.sha256[:2]}/{self.sha256}.{self.suffix}"

    def holds(self, content: bytes) -> bool:
        """Tell whether these are its bytes."""
        return hashlib.sha256(content).hexdigest() == self.sha256

    def __str__(self) -> str:
        return f"artifact://{self.bucket}/{self.sha256}.{self.suffix}"


class FileArtifactStore:
    """Keep content-addressed files under one folder.

    Parameters
    ----------
    folder : Path
        Created on the first write.
    links : LinkSigner, optional
        Signs the links; without one there are none.
    """

    def __init__(self, folder: Path, links: LinkSigner | None = None) -> None:
        self._folder = folder
        self._links = links

    def save(self, bucket: str, content: bytes, suffix: str) -> str:
        """Write bytes, once, and return their address; a file that was changed on disk is written anew.

        Raises
        ------
        StoreError
            If there are more bytes than `MAX_BYTES`.
        StoreUnavailableError
            If the folder cannot be written.
        """
        uri = str(Address.of(bucket, content, suffix))
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
        except OSError as error:
            raise StoreUnavailableError(f"the artifact {path} cannot be read ({error.strerror}).") from error
        if not Address.parse(uri).holds(content):
            raise MissingDataError(f"the artifact {path} was changed on disk: its content no longer has the hash in its name.")
        return content

    def link(self, uri: str, *, seconds: int) -> str:
        """Return a signed link that `core.store.links.answer` opens for so many seconds.

        Raises
        ------
        MissingDataError
            If nothing is there.
        ConfigurationError
            If the store was built without a signer.
        """
        if self._links is None:
            raise ConfigurationError("this artifact store signs no links: open it with `open_store`.")
        if not self.has(uri):
            raise MissingDataError(f"the artifact {uri} is not in {self._folder}.")
        return self._links.sign(uri.removeprefix("artifact://"), seconds=seconds)

    def _path(self, uri: str) -> Path:
        address = Address.parse(uri)
        return self._folder / address.bucket / address.path
