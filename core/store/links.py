"""Links to artifacts that end: signed with a key of this home, checked without asking anybody.

Hides the key and the signature. Promises that a link opens exactly the file it was signed for, until the second it names, and
that nothing about it can be changed. :func:`answer` is what an app serves under `PREFIX`; it needs no framework.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from core.clock import Clock, SystemClock
from core.errors import ConfigurationError, MissingDataError, StoreUnavailableError

if TYPE_CHECKING:
    from core.store.artifacts import ArtifactStore

PREFIX = "/artifacts/"
MAX_SECONDS = 7 * 24 * 3600
_KEY_BYTES = 32
_EXPIRES = re.compile(r"[0-9]{1,12}")


class LinkSigner:
    """Sign and check links.

    Parameters
    ----------
    key_file : Path
        Where the key lies; made on the first use, readable by its owner only.
    clock : Clock, optional
        What time it is.
    """

    def __init__(self, key_file: Path, clock: Clock | None = None) -> None:
        self._key_file = key_file
        self._clock = clock or SystemClock()

    def sign(self, name: str, *, seconds: int) -> str:
        """Return a link to ``bucket/file`` that ends after so many seconds.

        Raises
        ------
        ConfigurationError
            If `seconds` is not in 1..604800, or others may read the key.
        """
        if not 1 <= seconds <= MAX_SECONDS:
            raise ConfigurationError(f"`seconds` must be in 1..{MAX_SECONDS}, was {seconds}.")
        expires = int(self._clock.now().timestamp()) + seconds
        return f"{PREFIX}{name}?expires={expires}&signature={self._signature(name, str(expires))}"

    def check(self, target: str) -> str | None:
        """Return the ``bucket/file`` a link opens now; None when it opens nothing."""
        parts = urlsplit(target)
        values = parse_qs(parts.query, keep_blank_values=True)
        expires, signature = values.get("expires", []), values.get("signature", [])
        if not parts.path.startswith(PREFIX) or len(expires) != 1 or len(signature) != 1 or not _EXPIRES.fullmatch(expires[0]):
            return None
        name = parts.path.removeprefix(PREFIX)
        right = self._signature(name, expires[0])
        if not hmac.compare_digest(right.encode(), signature[0].encode()):
            return None
        return name if self._clock.now().timestamp() < int(expires[0]) else None

    def _signature(self, name: str, expires: str) -> str:
        return hmac.new(self._key(), f"GET\n{name}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        try:
            if not self._key_file.exists():
                self._make_key()
            if stat.S_IMODE(self._key_file.stat().st_mode) & 0o077:
                raise ConfigurationError(
                    f"others may read the key {self._key_file}: `chmod 600` it, or delete it to make a new one."
                )
            key = self._key_file.read_bytes()
        except OSError as error:
            raise StoreUnavailableError(f"the key {self._key_file} cannot be used ({error.strerror}): set AQF_HOME.") from error
        if len(key) != _KEY_BYTES:
            raise ConfigurationError(f"the key {self._key_file} must have {_KEY_BYTES} bytes: delete it for a new one.")
        return key

    def _make_key(self) -> None:
        """Make the key whole before it has its name, so that two processes end up with the same one."""
        self._key_file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._key_file.with_name(f"{self._key_file.name}.{secrets.token_hex(4)}.part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(partial, self._key_file)
        finally:
            partial.unlink()


@dataclass(frozen=True, kw_only=True)
class LinkAnswer:
    """What an app sends back."""

    status: HTTPStatus
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def answer(method: str, target: str, *, links: LinkSigner, artifacts: ArtifactStore) -> LinkAnswer:
    """Answer a request for a link.

    Parameters
    ----------
    method : str
        GET or HEAD.
    target : str
        Path and query, as they came.
    """
    if method not in ("GET", "HEAD"):
        return LinkAnswer(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
    name = links.check(target)
    if name is None:
        return LinkAnswer(status=HTTPStatus.FORBIDDEN, body=b"the link has expired or was changed\n")
    try:
        content = artifacts.load(f"artifact://{name}")
    except MissingDataError:
        return LinkAnswer(status=HTTPStatus.NOT_FOUND, body=b"the artifact is not here any more\n")
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(content)),
        "Content-Disposition": f'attachment; filename="{name.rpartition("/")[2]}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, immutable",
    }
    return LinkAnswer(status=HTTPStatus.OK, body=content if method == "GET" else b"", headers=headers)
