import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agents.trading.alerts import (
    Alert,
    AlertChannel,
    Alerts,
    AlertsConfig,
    LogAlerts,
    TelegramAlerts,
    WebhookAlerts,
    build_channels,
)
from core.clock import FixedClock
from core.errors import ConfigurationError, DataError
from tests.core.store.trading import NOW

TOKEN = "123456:ABC-def_9"
ALERT = Alert(subject="ares", state="failed", before="healthy", text="no answer", at=NOW)


@dataclass
class Loopback:
    """An HTTP server that keeps what it is sent."""

    url: str
    status: int = 200
    received: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Loopback]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            place.received.append((self.path, json.loads(body)))
            self.send_response(place.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    place = Loopback(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with serve() as place:
        yield place


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


class Ears:
    """A channel that keeps what it hears, or fails, or does something else besides."""

    name = "ears"

    def __init__(self, act: Callable[[], object] | None = None) -> None:
        self.heard: list[str] = []
        self.act = act

    def send(self, alert: Alert) -> None:
        self.heard.append(alert.line)
        if self.act is not None:
            self.act()


def alerts(clock: FixedClock, *channels: AlertChannel, **changes: Any) -> Alerts:
    return Alerts(channels, AlertsConfig(**changes), clock)


def test_a_state_is_told_when_it_changes_and_not_again(clock: FixedClock) -> None:
    ears = Ears()
    told = alerts(clock, ears)
    states = ["healthy", "healthy", "failed", "failed", "failed", "healthy"]
    assert [told.report("ares", state) for state in states] == [True, False, True, False, False, True]
    assert ears.heard == ["ares: healthy", "ares: healthy -> failed", "ares: failed -> healthy"]
    assert told.report("zeus", "healthy")


def test_a_state_that_is_remembered_is_not_told(clock: FixedClock) -> None:
    ears = Ears()
    told = alerts(clock, ears)
    told.remember("ares", "failed")
    assert not told.report("ares", "failed")
    assert told.report("ares", "healthy")
    assert ears.heard == ["ares: failed -> healthy"]


def test_a_flood_is_held_back_and_what_still_holds_is_told_when_there_is_room(
    clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    ears = Ears()
    told = alerts(clock, ears, most=2, window_seconds=600)
    with caplog.at_level(logging.WARNING):
        assert [told.report(f"agent {number}", "failed") for number in range(4)] == [True, True, False, False]
    assert "alert held back, 2 were sent within the window: agent 2: failed" in caplog.text
    clock.advance(timedelta(seconds=599.999))
    assert not told.report("agent 2", "failed")
    clock.advance(timedelta(milliseconds=1))
    assert told.report("agent 2", "failed")
    assert not told.report("agent 0", "failed")
    assert ears.heard == ["agent 0: failed", "agent 1: failed", "agent 2: failed"]


def test_a_channel_that_fails_is_logged_and_the_others_still_hear(clock: FixedClock, caplog: pytest.LogCaptureFixture) -> None:
    def break_off() -> None:
        raise ConnectionRefusedError("nobody there")

    broken, ears = Ears(break_off), Ears()
    told = alerts(clock, broken, ears)
    with caplog.at_level(logging.ERROR):
        assert told.report("ares", "failed")
    assert ears.heard == ["ares: failed"]
    assert "the alert 'ares: failed' could not be delivered by ears: nobody there" in caplog.text
    assert not told.report("ares", "failed")
    assert len(broken.heard) == 1


def test_an_alert_never_makes_another_not_even_through_the_log(clock: FixedClock) -> None:
    """A log handler that reports every error, and a channel that fails and so logs one: the classic loop."""
    answers: list[bool] = []

    def break_off() -> None:
        answers.append(told.report("channel", "broken"))
        raise ConnectionRefusedError("nobody there")

    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            answers.append(told.report("log", record.getMessage()))

    broken = Ears(break_off)
    told = alerts(clock, broken)
    handler = Reporter(level=logging.ERROR)
    logger = logging.getLogger("agents.trading.alerts")
    logger.addHandler(handler)
    try:
        assert told.report("ares", "failed")
    finally:
        logger.removeHandler(handler)
    assert answers == [False, False]
    assert broken.heard == ["ares: failed"]
    assert told.report("ares", "healthy") is True


def test_eight_threads_that_report_one_change_tell_it_once(clock: FixedClock) -> None:
    ears = Ears()
    told = alerts(clock, ears)
    together = threading.Barrier(8)

    def report() -> None:
        together.wait()
        told.report("ares", "failed")

    threads = [threading.Thread(target=report) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ears.heard == ["ares: failed"]


def test_a_webhook_gets_the_alert_as_json(loopback: Loopback) -> None:
    WebhookAlerts(f"{loopback.url}/hook?key=secret").send(ALERT)
    assert loopback.received == [
        (
            "/hook?key=secret",
            {
                "subject": "ares",
                "state": "failed",
                "before": "healthy",
                "text": "no answer",
                "at": NOW.isoformat(),
                "line": "ares: healthy -> failed (no answer)",
            },
        )
    ]


def test_telegram_gets_a_line_of_at_most_4096_characters(loopback: Loopback) -> None:
    channel = TelegramAlerts(TOKEN, "-100", base_url=f"{loopback.url}/")
    channel.send(ALERT)
    channel.send(Alert(subject="ares", state="failed", text="x" * 5000, at=NOW))
    (path, body), (_, long) = loopback.received
    assert path == f"/bot{TOKEN}/sendMessage"
    assert body == {"chat_id": "-100", "text": "ares: healthy -> failed (no answer)"}
    assert len(long["text"]) == 4096


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_an_answer_that_is_no_success_is_logged_without_the_secret(
    loopback: Loopback, clock: FixedClock, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    loopback.status = status
    channels = [WebhookAlerts(f"{loopback.url}/secret-path"), TelegramAlerts(TOKEN, "7", base_url=loopback.url)]
    with caplog.at_level(logging.DEBUG):
        assert alerts(clock, *channels).report("ares", "failed")
    assert caplog.text.count(f"the address answered {status}") == 2
    assert "secret-path" not in caplog.text
    assert TOKEN not in caplog.text
    assert len(loopback.received) == 2


def test_an_address_where_nobody_listens_is_logged(clock: FixedClock, caplog: pytest.LogCaptureFixture) -> None:
    with serve() as gone:
        url = gone.url
    with caplog.at_level(logging.ERROR):
        assert alerts(clock, WebhookAlerts(url, timeout_seconds=2)).report("ares", "failed")
    assert "could not be delivered by webhook" in caplog.text


def test_the_log_hears_a_warning(clock: FixedClock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        alerts(clock, LogAlerts()).report("trading", "halted", "drawdown of 8.1 %")
    assert caplog.messages == ["alert: trading: halted (drawdown of 8.1 %)"]


def test_what_is_configured_is_built() -> None:
    assert [channel.name for channel in build_channels()] == ["log"]
    every = build_channels(webhook_url="https://example.org", telegram_token=TOKEN, telegram_chat_id="7")
    assert [channel.name for channel in every] == ["log", "webhook", "telegram"]


@pytest.mark.parametrize(
    "values",
    [
        {"webhook_url": "file:///etc/passwd"},
        {"webhook_url": "example.org/hook"},
        {"webhook_url": "https://"},
        {"webhook_url": "https://example.org/a b"},
        {"webhook_url": "https://example.org/\u00e9"},
        {"webhook_url": "https://[::1"},
        {"webhook_url": "https://example.org:99999/"},
        {"telegram_token": TOKEN},
        {"telegram_chat_id": "7"},
        {"telegram_token": "nonsense/../", "telegram_chat_id": "7"},
        {"telegram_token": TOKEN, "telegram_chat_id": " "},
    ],
)
def test_what_cannot_be_used_is_refused_and_not_repeated(values: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        build_channels(**values)
    assert TOKEN not in str(error.value)
    assert not any(value in str(error.value) for value in values.values() if len(value) > 8)


def test_a_blank_state_or_a_limit_of_nothing_is_refused(clock: FixedClock) -> None:
    with pytest.raises(DataError, match=r"`Alert\.state` must be text that is not blank"):
        alerts(clock).report("ares", " ")
    with pytest.raises(DataError, match=r"`AlertsConfig\.most` must be 1 or more"):
        AlertsConfig(most=0)
