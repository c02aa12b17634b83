"""A web site and something to fetch it with, for the agents that listen."""

from collections.abc import Iterator

import pytest

from agents.trading.web import Web, WebConfig
from tests.agents.trading.loopback import Site, serve

AGENT = "AQF tests (tests@example.org)"


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site of this test's own."""
    with serve() as opened:
        yield opened


@pytest.fixture
def web() -> Iterator[Web]:
    """Fetches without pauses, at most a second and 100,000 bytes a page."""
    with Web(WebConfig(user_agent=AGENT, seconds_between=0.0, timeout_seconds=1.0, max_bytes=100_000)) as opened:
        yield opened
