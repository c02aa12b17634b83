"""Web: fetches public pages politely, and never more of them than asked for.

Hides connections, waiting and HTTP's conditions. Promises that one host is asked no faster than configured and not before it
said so, that a page comes whole and within size and time or not at all, and that whatever goes wrong is a `DataError` that
names the address without what may be a key in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from core.errors import ConfigurationError, DataError, MissingDataError

_BUSY = (429, 503)
_MOST_REDIRECTS = 3


def is_address(text: str) -> bool:
    """Return whether a text is an address of the web: http or https, a host, and nothing that an address cannot hold."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and text.isascii() and text.isprintable() and " " not in text


def without_keys(url: str) -> str:
    """Return the scheme, host and path of an address: who asks, and what is asked for, may hold a password or a key."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WebConfig:
    """How pages are fetched.

    Parameters
    ----------
    user_agent : str
        Who asks, with an address to write to: the SEC and others refuse whoever does not say.
    timeout_seconds : float, default=20
        Most for a whole page.
    max_bytes : int, default=8 MiB
        Largest page.
    seconds_between : float, default=0.5
        Least between two requests to one host; arXiv asks for 3.
    busy_seconds : float, default=60
        How long a host that is busy is left alone when it does not say.

    Raises
    ------
    ConfigurationError
        If nobody is named, or a number is not positive.
    """

    user_agent: str
    timeout_seconds: float = 20.0
    max_bytes: int = 8 * 2**20
    seconds_between: float = 0.5
    busy_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not self.user_agent.strip() or not self.user_agent.isascii() or not self.user_agent.isprintable():
            raise ConfigurationError(
                f"`user_agent` must say in ASCII who asks and how to write to them, was {self.user_agent!r}."
            )
        if self.timeout_seconds <= 0.0 or self.max_bytes < 1 or self.seconds_between < 0.0 or self.busy_seconds < 0.0:
            raise ConfigurationError("`timeout_seconds` and `max_bytes` must be positive, the pauses not negative.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page as it came, and by what to ask whether it changed."""

    content: bytes
    etag: str | None = None
    last_modified: str | None = None


class Web:
    """Fetch pages.

    Parameters
    ----------
    config : WebConfig
    sleep : callable, default=time.sleep
        Takes seconds; waits.
    monotonic : callable, default=time.monotonic
        Returns seconds that never run backwards.
    """

    def __init__(
        self,
        config: WebConfig,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._sleep, self._monotonic = config, sleep, monotonic
        self._client = httpx.Client(
            headers={"User-Agent": config.user_agent, "Accept-Encoding": "identity"},
            timeout=config.timeout_seconds,
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
        )
        self._next: dict[str, float] = {}
        self._busy_until: dict[str, float] = {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def fetch(self, url: str, *, known: Page | None = None) -> Page | None:
        """Return a page; None when it is still the one that is known.

        Raises
        ------
        MissingDataError
            If the host cannot be reached, is too slow, or does not give the page.
        DataError
            If the page is too large, or compressed although that was not asked for.
        """
        host = self._wait_for(url)
        conditions = {} if known is None else {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
        headers = {name: value for name, value in conditions.items() if value is not None}
        started = self._monotonic()
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                if answer.status_code == httpx.codes.NOT_MODIFIED and known is not None:
                    return None
                if answer.status_code in _BUSY:
                    self._busy_until[host] = self._monotonic() + self._pause(answer.headers.get("Retry-After"))
                if answer.status_code != httpx.codes.OK:
                    raise MissingDataError(f"{without_keys(url)} answered {answer.status_code} {answer.reason_phrase}.")
                content = self._read(url, answer, started)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MissingDataError(f"{without_keys(url)} cannot be fetched: {error or type(error).__name__}.") from error
        finally:
            self._next[host] = self._monotonic() + self._config.seconds_between
        return Page(content=content, etag=answer.headers.get("ETag"), last_modified=answer.headers.get("Last-Modified"))

    def _wait_for(self, url: str) -> str:
        try:
            host = urlsplit(url).netloc
        except ValueError:
            # What it says may repeat the address.
            raise MissingDataError(f"{without_keys(url)} cannot be fetched.") from None
        busy = self._busy_until.get(host, 0.0) - self._monotonic()
        if busy > 0.0:
            raise MissingDataError(f"{without_keys(url)} is not asked for another {busy:.0f} seconds: its host was busy.")
        wait = self._next.get(host, 0.0) - self._monotonic()
        if wait > 0.0:
            self._sleep(wait)
        return host

    def _pause(self, retry_after: str | None) -> float:
        # It may also be a date; whoever sends one is left alone as if it had said nothing.
        return float(retry_after) if retry_after is not None and retry_after.isdecimal() else self._config.busy_seconds

    def _read(self, url: str, answer: httpx.Response, started: float) -> bytes:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise DataError(
                f"{without_keys(url)} came compressed ({answer.headers['Content-Encoding']}), which was not asked for."
            )
        content = bytearray()
        # As it comes: a chunk size would wait for that many bytes, for ever where they drip.
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) > self._config.max_bytes:
                raise DataError(f"{without_keys(url)} is larger than {self._config.max_bytes} bytes.")
            if self._monotonic() - started > self._config.timeout_seconds:
                raise MissingDataError(f"{without_keys(url)} took longer than {self._config.timeout_seconds:g} seconds.")
        return bytes(content)
