"""Alerts: tell a person when something changes, once, wherever they want to hear it.

Hides the channels. Promises that a state is told when it changes and not again, that no flood leaves the house, and that an
alert that fails is logged and is never itself a reason for an alert.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from agents.trading.web import is_address
from core.clock import Clock
from core.errors import AQFError, ConfigurationError
from core.message import Message, refuse
from core.settings import Settings
from core.types import Count, Identifier, Positive

_log = logging.getLogger(__name__)

TELEGRAM_URL = "https://api.telegram.org"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert(Message):
    """A change that a person should hear of.

    Parameters
    ----------
    subject : str
        What changed: an agent, trading, a broker.
    state : str
        What it is now.
    before : str, optional
        What it was; None where nobody knows.
    text : str, default=""
    at : datetime
        UTC.
    """

    subject: Identifier
    state: Identifier
    before: Identifier | None = None
    text: str = ""
    at: datetime

    @property
    def line(self) -> str:
        """The alert in one line."""
        change = self.state if self.before is None else f"{self.before} -> {self.state}"
        return f"{self.subject}: {change}" + (f" ({self.text})" if self.text else "")


class AlertChannel(Protocol):
    """A way to a person."""

    @property
    def name(self) -> str:
        """Name for the log, without any secret."""

    def send(self, alert: Alert) -> None:
        """Deliver an alert; raises `AQFError` or `OSError` where it cannot."""


class LogAlerts:
    """Write alerts into the log of this process, as warnings."""

    name = "log"

    def send(self, alert: Alert) -> None:
        """Write an alert."""
        _log.warning("alert: %s", alert.line)


class WebhookAlerts:
    """Post alerts as JSON to an address.

    Parameters
    ----------
    url : str
        With http or https. It may hold a secret and appears in no message.
    timeout_seconds : float, default=5

    Raises
    ------
    ConfigurationError
        If `url` is no address.
    """

    name = "webhook"

    def __init__(self, url: str, *, timeout_seconds: float = 5.0) -> None:
        if not is_address(url):
            raise ConfigurationError("the webhook for alerts must be an address that begins with http:// or https://.")
        self._url = url
        self._timeout = timeout_seconds

    def send(self, alert: Alert) -> None:
        """Post an alert.

        Raises
        ------
        OSError
            If it cannot be delivered, or the answer is not one of success.
        """
        _post(self._url, {**alert.to_dict(), "line": alert.line}, self._timeout)


class TelegramAlerts:
    """Send alerts to a Telegram chat by its bot interface.

    Parameters
    ----------
    token : str
        Of the bot; it appears in no message.
    chat_id : str
    base_url : str, default=TELEGRAM_URL
    timeout_seconds : float, default=5

    Raises
    ------
    ConfigurationError
        If the token does not look like one, or the chat is empty.
    """

    name = "telegram"

    def __init__(self, token: str, chat_id: str, *, base_url: str = TELEGRAM_URL, timeout_seconds: float = 5.0) -> None:
        if not re.fullmatch(r"\d+:[\w-]+", token):
            raise ConfigurationError("the Telegram token must look like 123456:ABC-def, as @BotFather gives it.")
        if not chat_id.strip():
            raise ConfigurationError("the Telegram chat of the alerts must be named.")
        self._url = f"{base_url.rstrip('/')}/bot{token}/sendMessage"
        self._chat_id = chat_id
        self._timeout = timeout_seconds

    def send(self, alert: Alert) -> None:
        """Send an alert as plain text.

        Raises
        ------
        OSError
            If it cannot be delivered, or the answer is not one of success.
        """
        _post(self._url, {"chat_id": self._chat_id, "text": alert.line[:4096]}, self._timeout)


def _post(url: str, body: dict[str, Any], timeout: float) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read(65_536)
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"the address answered {error.code}") from None
    except urllib.error.URLError as error:
        raise OSError(f"the address cannot be reached: {error.reason}") from None
    except http.client.HTTPException as error:
        raise OSError(f"the address answered what is not HTTP: {type(error).__name__}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertsConfig(Message):
    """How many alerts may leave.

    Parameters
    ----------
    most : int, default=10
        Alerts within the window; 1 or more. A change that does not get through is told as soon as there is room and it is
        reported again.
    window_seconds : float, default=600
    """

    most: Count = 10
    window_seconds: Positive = 600.0

    def _check(self) -> None:
        if self.most == 0:
            raise refuse(self, "most", "1 or more", self.most)


class Alerts:
    """Tell changes of state over every channel; several threads may use it.

    Parameters
    ----------
    channels : sequence of AlertChannel
    config : AlertsConfig
    clock : Clock
    """

    def __init__(self, channels: Sequence[AlertChannel], config: AlertsConfig, clock: Clock) -> None:
        self._channels = tuple(channels)
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, str] = {}
        self._sent_at: deque[datetime] = deque()
        self._sending = threading.local()

    def remember(self, subject: str, state: str) -> None:
        """Take a state as known without telling it: what was told before a restart, or what is normal."""
        with self._lock:
            self._told[subject] = state

    def report(self, subject: str, state: str, text: str = "") -> bool:
        """Tell the state of a subject if it is not the one last told, and return whether it was told.

        A report from within the sending of an alert, by a channel or a log handler, is dropped. What a channel fails to deliver
        is logged and counts as told: the log has it.

        Raises
        ------
        DataError
            If `subject` or `state` is blank.
        """
        if getattr(self._sending, "now", False):
            return False
        alert = self._admit(subject, state, text)
        if alert is None:
            return False
        self._sending.now = True
        try:
            for channel in self._channels:
                self._send(channel, alert)
        finally:
            self._sending.now = False
        return True

    def _admit(self, subject: str, state: str, text: str) -> Alert | None:
        with self._lock:
            before, now = self._told.get(subject), self._clock.now()
            if before == state:
                return None
            alert = Alert(subject=subject, state=state, before=before, text=text, at=now)
            while self._sent_at and now - self._sent_at[0] >= timedelta(seconds=self._config.window_seconds):
                self._sent_at.popleft()
            if len(self._sent_at) >= self._config.most:
                _log.warning("alert held back, %d were sent within the window: %s", len(self._sent_at), alert.line)
                return None
            self._sent_at.append(now)
            self._told[subject] = state
            return alert

    def _send(self, channel: AlertChannel, alert: Alert) -> None:
        try:
            channel.send(alert)
        except (AQFError, OSError) as error:
            _log.error("the alert %r could not be delivered by %s: %s", alert.line, channel.name, error)


def build_channels(
    *,
    webhook_url: str | None = None,
    telegram_token: str | None = None,
    telegram_chat_id: str | None = None,
    telegram_url: str = TELEGRAM_URL,
) -> list[AlertChannel]:
    """Return the channels that are configured; the log always is.

    Raises
    ------
    ConfigurationError
        If a value cannot be used, or only one half of Telegram's is given.
    """
    if (telegram_token is None) != (telegram_chat_id is None):
        raise ConfigurationError("alerts over Telegram need a token and a chat: set both, or neither.")
    channels: list[AlertChannel] = [LogAlerts()]
    if webhook_url is not None:
        channels.append(WebhookAlerts(webhook_url))
    if telegram_token is not None and telegram_chat_id is not None:
        channels.append(TelegramAlerts(telegram_token, telegram_chat_id, base_url=telegram_url))
    return channels


def configured_channels(settings: Settings, *, webhook_url: str | None = None) -> list[AlertChannel]:
    """Return the channels that the environment names; `webhook_url` goes before the one it names.

    Raises
    ------
    ConfigurationError
        As `build_channels`.
    """
    named = settings.alert_webhook_url
    return build_channels(
        webhook_url=named.get_secret_value() if webhook_url is None and named is not None else webhook_url,
        telegram_token=None if settings.telegram_token is None else settings.telegram_token.get_secret_value(),
        telegram_chat_id=settings.telegram_chat_id,
        telegram_url=settings.telegram_url or TELEGRAM_URL,
    )
