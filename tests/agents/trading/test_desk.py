"""The desk: who is asked when, what a look finds, and what is remembered over a restart."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.brokers.broker import Account
from agents.trading.alerts import Alert, Alerts, AlertsConfig
from agents.trading.apollo import Apollo, ApolloConfig
from agents.trading.desk import Desk
from agents.trading.feeds import Dropped, EdgarFeed
from agents.trading.hermes import Harvest, SourceFailure
from agents.trading.running import Round
from agents.trading.sessions import ExchangeSessions
from agents.trading.upkeep import Filers, Upkeep
from agents.trading.watchdog import Watchdog, WatchdogConfig
from agents.trading.web import Web
from core.clock import FixedClock
from core.errors import BrokerUnavailableError, StoreUnavailableError
from core.store.opening import Store
from core.store.trading_records import Exchange
from core.types import AgentHealth
from tests.agents.trading.desk import CASH, NOW, build_desk, paper_broker, signal
from tests.agents.trading.loopback import Site
from tests.agents.trading.test_apollo import decide

LISTINGS = b'{"fields": ["cik", "name", "ticker", "exchange"], "data": [[1, "Acme Corp", "ACM", "NYSE"]]}'


@dataclass
class Line:
    """A broker behind a line that is cut now and then, and is whole again only after connecting anew."""

    inner: Any
    is_cut: bool = False
    needs_connecting: bool = False
    connects: int = 0

    def connect(self) -> None:
        self.connects += 1
        if self.is_cut:
            raise BrokerUnavailableError("no route to the broker")
        self.needs_connecting = False
        self.inner.connect()

    def get_account(self) -> Account:
        if self.is_cut or self.needs_connecting:
            raise BrokerUnavailableError("the line is cut")
        account: Account = self.inner.get_account()
        return account

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class Wire:
    """A producer whose sources fail as a test says; each item is a symbol."""

    store: Store
    symbols: list[str] = field(default_factory=list)
    failing: tuple[str, ...] = ()
    dropping: tuple[str, ...] = ()
    n_read: int = 1
    asked: int = 0

    def collect(self) -> Harvest:
        self.asked += 1
        for symbol in self.symbols:
            item = signal(symbol)
            self.store.trading.save_signal(item, source="wire", source_key=item.signal_id)
        n_new, self.symbols = len(self.symbols), []
        failures = tuple(SourceFailure(source=name, reason="https://x.example/?key=hunter2 is down") for name in self.failing)
        dropped = tuple(Dropped(source="wire", key=key, reason="its urgency is low.") for key in self.dropping)
        return Harvest(n_new=n_new, n_known=0, n_held=0, dropped=dropped, failures=failures, n_read=self.n_read)


class Ears:
    name = "ears"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, alert: Alert) -> None:
        self.heard.append(alert.line)


@dataclass
class World:
    """A desk, everything that a test turns, and what it said."""

    desk: Desk
    clock: FixedClock
    broker: Line
    wire: Wire
    ears: Ears
    said: list[str]

    def status(self, name: str) -> tuple[AgentHealth, str]:
        """Return what the last stored report of somebody says."""
        (report,) = [one for one in self.desk.pipeline.context.store.trading.latest_health() if one.agent_name == name]
        return report.status, report.message

    def pass_time(self, seconds: float, *, rest_every: float = 60.0) -> None:
        """Let time pass, and rest as often as a loop does, or more often."""
        for _ in range(int(seconds // rest_every)):
            self.clock.advance(timedelta(seconds=rest_every))
            self.desk.rest(collect_seconds=900.0)


def open_world(
    store: Store, *, at: datetime = NOW, upkeep: Upkeep | None = None, check: Callable[[], None] = lambda: None
) -> World:
    clock, said = FixedClock(at), list[str]()
    broker = Line(paper_broker(store, clock))
    built = build_desk(store, broker=broker, clock=clock)
    built.context.gates.icarus.scan = lambda worker: store.trading.claim_signals(worker, 10)  # type: ignore[attr-defined]
    ears, wire = Ears(), Wire(store)
    alerts = Alerts([ears], AlertsConfig(most=1000), clock)
    watchdog = Watchdog(store.trading, WatchdogConfig(), clock, alerts)
    desk = Desk(built.pipeline, watchdog, worker="w", producers=[wire], upkeep=upkeep, check=check, tell=said.append)
    return World(desk, clock, broker, wire, ears, said)


@pytest.fixture
def world(store: Store) -> World:
    return open_world(store)


def test_a_round_decides_on_what_the_producers_just_brought(world: World) -> None:
    world.wire.symbols = ["AAA", "BBB"]
    done = world.desk.round()
    assert [trace.symbol for trace in done.traces] == ["AAA", "BBB"]
    assert done.valuation.equity == CASH


def test_a_round_tells_once_what_was_not_kept_since_the_last(world: World) -> None:
    world.wire.dropping = ("one",)
    assert [dropped.key for dropped in world.desk.round().dropped] == ["one"]
    world.wire.dropping = ("one", "two")
    world.pass_time(900)
    world.wire.dropping = ()
    world.pass_time(900)
    world.wire.dropping = ("two", "three", "three")
    assert [dropped.key for dropped in world.desk.round().dropped] == ["two", "three"]
    assert world.desk.round().dropped == ()


def test_a_desk_that_lost_its_store_to_another_does_not_even_read_the_news(store: Store) -> None:
    def check() -> None:
        raise StoreUnavailableError("the lock is lost")

    world = open_world(store, check=check)
    with pytest.raises(StoreUnavailableError, match="the lock is lost"):
        world.desk.round()
    assert world.wire.asked == 0


def test_what_goes_on_between_rounds_collects_and_decides_nothing(world: World) -> None:
    world.desk.round()
    world.wire.symbols = ["AAA"]
    world.pass_time(840)
    assert world.wire.asked == 1
    world.pass_time(60)
    assert world.wire.asked == 2
    world.pass_time(1800)
    assert world.wire.asked == 4
    assert world.desk.pipeline.context.store.trading.list_decision_traces() == []
    assert len(world.desk.round().traces) == 1


def test_a_broker_that_dies_between_rounds_is_noticed_within_a_minute_and_connected_again(world: World) -> None:
    world.desk.round()
    world.desk.look()
    connects = world.broker.connects
    world.broker.is_cut = True
    world.pass_time(60)
    assert world.status("ares") == (AgentHealth.FAILED, "the line is cut")
    assert world.broker.connects == connects + 1
    world.broker.is_cut, world.broker.needs_connecting = False, True
    world.pass_time(60)
    assert world.status("ares")[0] is AgentHealth.FAILED  # two minutes lie between two restarts
    world.pass_time(60)
    assert world.broker.connects == connects + 2
    world.pass_time(120)
    assert world.status("ares") == (AgentHealth.HEALTHY, "")
    assert world.ears.heard == ["ares: healthy -> failed (the line is cut)", "ares: failed -> healthy"]


def test_everybody_is_looked_at_once_a_minute_however_often_there_is_rest(world: World) -> None:
    world.desk.round()
    world.pass_time(180, rest_every=10.0)
    looks = world.desk.pipeline.context.store.trading.gateway.select("agent_health", where={"agent_name": "ares"})
    assert len(looks) == 3


@pytest.mark.parametrize(("every", "asked"), [(1.0, 11), (300.0, 3)])
def test_while_the_exchange_is_closed_news_comes_as_often_as_in_a_session_but_not_every_second(
    store: Store, every: float, asked: int
) -> None:
    opening = datetime(2024, 7, 8, 13, 30, tzinfo=UTC)
    world = open_world(store, at=opening - timedelta(minutes=10))
    rounds: list[Round] = []

    def sleep(seconds: float) -> None:
        world.clock.advance(timedelta(seconds=seconds))

    world.desk.trade(
        hours=ExchangeSessions(), every_seconds=every, sleep=sleep, on_round=rounds.append, on_wait=lambda at: None, most=1
    )
    assert ([done.at for done in rounds], world.wire.asked) == ([opening], asked)


def test_after_an_outage_that_only_a_look_saw_the_next_round_is_a_recovery(world: World) -> None:
    world.desk.round()
    world.broker.is_cut = True
    world.desk.look()
    world.broker.is_cut = False
    # What the broker did meanwhile, and what no ordinary tick asks for: money that no fill explains.
    world.desk.pipeline.context.store.trading.gateway.update(
        "paper_accounts", {"cash": CASH + 500.0}, where={"account": "paper"}
    )
    assert world.desk.round().valuation.equity == CASH + 500.0


def test_a_broker_that_answers_but_failed_the_last_round_is_degraded_until_a_round_succeeds(world: World) -> None:
    def fail(*_: Any) -> None:
        raise BrokerUnavailableError("executions are not to be had")

    world.broker.list_executions = fail  # type: ignore[attr-defined]
    world.desk.round()
    assert world.said == ["the broker does not answer: executions are not to be had"]
    world.desk.look()
    assert world.status("ares") == (AgentHealth.DEGRADED, "it answers; at the last round: executions are not to be had")
    del world.broker.list_executions  # type: ignore[attr-defined]
    world.clock.advance(timedelta(seconds=1))
    world.desk.round()
    world.desk.look()
    assert world.status("ares")[0] is AgentHealth.HEALTHY


def test_a_start_while_the_exchange_is_closed_recovers_looks_and_collects_and_alerts_nobody(store: Store) -> None:
    friday_night = datetime(2024, 7, 5, 21, 0, tzinfo=UTC)
    world = open_world(store, at=friday_night)
    world.wire.symbols = ["AAA"]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 30:
            raise KeyboardInterrupt
        world.clock.advance(timedelta(seconds=seconds))

    rounds, waits = list[Round](), list[datetime]()
    with pytest.raises(KeyboardInterrupt):
        world.desk.trade(
            hours=ExchangeSessions(), every_seconds=900.0, sleep=sleep, on_round=rounds.append, on_wait=waits.append
        )
    assert (rounds, waits) == ([], [datetime(2024, 7, 8, 13, 30, tzinfo=UTC)])
    assert store.trading.list_decision_traces() == []
    assert (set(slept), world.wire.asked, world.ears.heard) == ({60.0}, 2, [])
    statuses = {report.agent_name: report.status for report in store.trading.latest_health()}
    assert (statuses["ares"], statuses["argus"], statuses["hermes"]) == (AgentHealth.HEALTHY,) * 3
    health = store.trading.gateway.select("agent_health", where={"agent_name": "ares"})
    assert len(health) == 30


@pytest.mark.parametrize(
    ("failing", "n_read", "status", "message"),
    [
        ((), 2, AgentHealth.HEALTHY, ""),
        (("wire",), 1, AgentHealth.DEGRADED, "fails: wire"),
        (("wire", "tape"), 0, AgentHealth.FAILED, "fails: tape, wire"),
    ],
)
def test_sources_that_fail_are_named_without_their_addresses(
    world: World, failing: tuple[str, ...], n_read: int, status: AgentHealth, message: str
) -> None:
    world.wire.failing, world.wire.n_read = failing, n_read
    world.desk.round()
    world.desk.look()
    assert world.status("hermes") == (status, message)
    assert "hunter2" not in "".join(world.ears.heard)
    assert len(world.said) == len(failing)


def apollo(store: Store, clock: FixedClock) -> Apollo:
    return Apollo(store.trading, store.trade_log, store.knowledge, ApolloConfig(), clock)


def test_the_digest_is_written_once_a_day_whatever_restarts(store: Store) -> None:
    decide(store, approved=5, refused=5)
    clock = FixedClock(NOW + timedelta(hours=1))
    for _ in range(3):
        assert Upkeep(apollo(store, clock), clock).run_due() == ()
        clock.advance(timedelta(minutes=1))
    document = store.knowledge.get_document("digest:2024-03-04")
    assert document.known_at == NOW + timedelta(hours=1)
    clock.advance(timedelta(days=1))
    Upkeep(apollo(store, clock), clock).run_due()
    assert store.knowledge.get_document("digest:2024-03-05").known_at == clock.now()


def test_listings_come_at_the_start_and_once_a_day_and_again_until_they_came(store: Store, site: Site, web: Web) -> None:
    clock, site.status = FixedClock(NOW), 404
    feed = EdgarFeed(web, url=f"{site.url}/edgar")
    upkeep = Upkeep(apollo(store, clock), clock, filers=Filers(feed=feed, web=web, url=f"{site.url}/listings"))
    (failure,) = upkeep.run_due()
    assert (failure.source, "404" in failure.reason) == ("the SEC's listings", True)
    assert (upkeep.report().status, upkeep.report().message) == (AgentHealth.DEGRADED, "fails: the SEC's listings")
    site.status, site.body = 200, LISTINGS
    assert upkeep.run_due() == ()
    assert upkeep.report().status is AgentHealth.HEALTHY
    (mapping,) = store.trading.list_ticker_mappings()
    assert (mapping.supplier_name, mapping.ticker, mapping.exchange) == ("Acme Corp", "ACM", Exchange.NYSE)
    upkeep.run_due()
    assert len(site.requests) == 2
    clock.advance(timedelta(days=1))
    upkeep.run_due()
    assert len(site.requests) == 3


def test_an_upkeep_that_fails_is_said_and_the_round_goes_on(store: Store, site: Site, web: Web) -> None:
    site.status = 500
    clock = FixedClock(NOW)
    filers = Filers(feed=EdgarFeed(web, url=f"{site.url}/edgar"), web=web, url=f"{site.url}/listings")
    world = open_world(store, upkeep=Upkeep(apollo(store, clock), clock, filers=filers))
    world.wire.symbols = ["AAA"]
    assert len(world.desk.round().traces) == 1
    assert len(world.said) == 1
    assert world.said[0].startswith("the SEC's listings must wait: ")
    world.desk.look()
    assert world.status("apollo")[0] is AgentHealth.DEGRADED


def test_sources_that_all_fail_are_asked_again_at_the_next_rest_after_a_restart_and_others_when_due(world: World) -> None:
    world.wire.failing = ("wire",)
    world.wire.n_read = 0
    world.desk.round()
    world.clock.advance(timedelta(seconds=1))
    world.desk.look()
    assert world.status("hermes")[0] is AgentHealth.FAILED
    world.wire.failing, world.wire.n_read = (), 1
    world.pass_time(60.0)
    assert world.wire.asked == 2
    world.pass_time(840.0)
    assert world.wire.asked == 2
    world.pass_time(60.0)
    assert world.wire.asked == 3
