"""SupabaseArtifactStore: artifacts in Supabase Storage, through storage3.

Hides requests and the storage API's errors. An upload carries its own hash as its name and replaces what is there whole, so
that sending it again does nothing twice; what comes back is checked against the name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from core.errors import MissingDataError, StoreError, StoreUnavailableError
from core.store.artifacts import Address

if TYPE_CHECKING:
    from storage3 import SyncStorageClient

Answer = TypeVar("Answer")

_SECONDS = 120.0
_CONNECT_SECONDS = 15.0
_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.2
_BUSY = ("429", "500", "502", "503", "504")


class SupabaseArtifactStore:
    """Keep content-addressed files in the buckets of a project.

    Parameters
    ----------
    url : str
        Address of the project.
    key : str
        Its service-role key: the buckets are private.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._key = key

    @cached_property
    def _client(self) -> SyncStorageClient:
        import httpx
        from storage3 import SyncStorageClient

        session = httpx.Client(timeout=httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS))
        headers = {"apikey": self._key, "Authorization": f"Bearer {self._key}"}
        return SyncStorageClient(f"{self.url.rstrip('/')}/storage/v1/", headers, http_client=session)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.session.close()
            del self._client

    def save(self, bucket: str, content: bytes, suffix: str) -> str:
        """Upload bytes and return their address.

        Raises
        ------
        StoreError
            If there are more than the limit, or the bucket is not there.
        StoreUnavailableError
            If the project cannot be reached, or refuses the key.
        """
        address = Address.of(bucket, content, suffix)
        options = {"upsert": "true", "content-type": "application/octet-stream", "cache-control": "31536000"}
        self._ask(address, lambda: self._client.from_(bucket).upload(address.path, content, options))  # type: ignore[arg-type]
        return str(address)

    def has(self, uri: str) -> bool:
        """Tell whether something lies at an address."""
        address = Address.parse(uri)
        return self._ask(address, lambda: self._client.from_(address.bucket).exists(address.path))

    def load(self, uri: str) -> bytes:
        """Download the bytes of an address.

        Raises
        ------
        MissingDataError
            If nothing is there, or what is there is not what the address says.
        """
        address = Address.parse(uri)
        content = self._ask(address, lambda: self._client.from_(address.bucket).download(address.path))
        if not address.holds(content):
            raise MissingDataError(
                f"the artifact {uri} was changed in {self.url}: its content no longer has the hash in its name."
            )
        return content

    def link(self, uri: str, *, seconds: int) -> str:
        """Return a link that the project signs.

        Raises
        ------
        MissingDataError
            If nothing is there.
        """
        address = Address.parse(uri)
        return str(
            self._ask(address, lambda: self._client.from_(address.bucket).create_signed_url(address.path, seconds))["signedURL"]
        )

    def _ask(self, address: Address, request: Callable[[], Answer]) -> Answer:
        import httpx
        from storage3.exceptions import StorageApiError

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return request()
            except StorageApiError as error:
                if str(error.status) not in _BUSY or attempt == _ATTEMPTS:
                    raise self._refusal(address, error) from error
            except httpx.HTTPError as error:
                if attempt == _ATTEMPTS:
                    reason = error or type(error).__name__
                    raise StoreUnavailableError(f"the artifact storage of {self.url} cannot be reached: {reason}") from error
            time.sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _refusal(self, address: Address, error: object) -> StoreError | MissingDataError:
        status, text = str(getattr(error, "status", "")), str(getattr(error, "message", error))
        if status == "404" and "ucket" in text:
            return StoreError(f"{self.url} has no bucket {address.bucket} ({text}): apply supabase/migrations.")
        if status == "404":
            return MissingDataError(f"the artifact {address} is not in {self.url}.")
        if status == "413":
            return StoreError(f"the artifact {address} is larger than the bucket allows ({text}).")
        if status in ("400", "401", "403") and any(
            word in text.lower() for word in ("jwt", "jws", "key", "unauthorized", "signature")
        ):
            return StoreUnavailableError(f"the artifact storage of {self.url} refuses SUPABASE_SERVICE_ROLE_KEY ({text}).")
        if status in _BUSY:
            return StoreUnavailableError(f"the artifact storage of {self.url} cannot be reached: {status} {text}")
        return StoreError(f"the artifact storage of {self.url} refused {address}: {status} {text}")
