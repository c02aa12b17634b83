"""TradingContext: what a pipeline works with, and every rule of it in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from agents.brokers.broker import Broker
from agents.brokers.opening import BrokerKind, build_broker
from agents.brokers.paper import PaperConfig
from agents.trading.ares import AresConfig, Sessions
from agents.trading.argus import ArgusConfig
from agents.trading.artemis import ArtemisConfig
from agents.trading.breaker import BreakerConfig
from agents.trading.chat import Chat, ChatConfig, OpenAIChat, SpendingLog
from agents.trading.companies import company_sectors
from agents.trading.experience import ExperienceConfig
from agents.trading.gates import Gates, build_gates
from agents.trading.hades import HadesConfig
from agents.trading.icarus import IcarusConfig
from agents.trading.limits import LimitsConfig
from agents.trading.market_data import MarketData
from agents.trading.milestones import MilestonesConfig
from agents.trading.pythia import PythiaConfig
from agents.trading.reconciliation import ReconcilerConfig
from agents.trading.sanctions import ListFile, ListFormat, ListSource, SanctionsFiles
from agents.trading.seniority import may_trade_real_money
from agents.trading.sizing import RampSizing, Sizing
from agents.trading.zeus import ZeusConfig
from core.clock import Clock, SystemClock
from core.errors import ConfigurationError
from core.settings import Settings
from core.store.opening import Store, open_store


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How the pipeline works through its signals.

    Parameters
    ----------
    batch : int, default=8
        Signals that share a transaction and a view of the book; with a model they go one by one.
    tick_seconds : float, default=1
        Least time between two looks at the broker and the book.
    cash_tolerance : float, default=0.01
        Difference between the broker's cash and ours that is rounding.
    guard_seconds : float, default=60
        Least time between two looks whether what is held still has its stop at the broker; a start always looks.
    """

    batch: int = 8
    tick_seconds: float = 1.0
    cash_tolerance: float = 0.01
    guard_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.tick_seconds, self.cash_tolerance, self.guard_seconds) < 0.0:
            raise ConfigurationError(
                "`batch` must be 1 or more; `tick_seconds`, `cash_tolerance` and `guard_seconds` not negative."
            )


@dataclass(frozen=True, kw_only=True)
class TradingConfig:
    """The rules of every agent; the defaults are those of the desk."""

    icarus: IcarusConfig = field(default_factory=IcarusConfig)
    hades: HadesConfig = field(default_factory=HadesConfig)
    artemis: ArtemisConfig = field(default_factory=ArtemisConfig)
    pythia: PythiaConfig = field(default_factory=PythiaConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    milestones: MilestonesConfig = field(default_factory=MilestonesConfig)
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    zeus: ZeusConfig = field(default_factory=ZeusConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)
    ares: AresConfig = field(default_factory=AresConfig)
    argus: ArgusConfig = field(default_factory=ArgusConfig)
    reconciler: ReconcilerConfig = field(default_factory=ReconcilerConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)


class Alerting(Protocol):
    """Who is told of changes of state."""

    def report(self, subject: str, state: str, text: str = "") -> bool:
        """Tell the state of a subject if it is not the one last told."""


@dataclass(frozen=True, kw_only=True)
class TradingContext:
    """What a pipeline works with.

    Parameters
    ----------
    store : Store
    broker : Broker
    data : MarketData
    gates : Gates
        The three agents that judge a signal before it is sized.
    clock : Clock
    chat : Chat, optional
        The director's model; None is rule mode.
    sizing : Sizing
    sectors : mapping of str to str
        Sector by symbol; by default of the companies that ship.
    sessions : Sessions, optional
        When the exchange trades; entries end with the session.
    alerts : Alerting, optional
    real_money_armed : bool, default=False
        Whether all conditions of real money hold, see `is_real_money_armed`; a broker of real money gets no order without.
    config : TradingConfig
    """

    store: Store
    broker: Broker
    data: MarketData
    gates: Gates
    clock: Clock = field(default_factory=SystemClock)
    chat: Chat | None = None
    sizing: Sizing = field(default_factory=RampSizing)
    sectors: Mapping[str, str] = field(default_factory=company_sectors)
    sessions: Sessions | None = None
    alerts: Alerting | None = None
    real_money_armed: bool = False
    config: TradingConfig = field(default_factory=TradingConfig)

    @classmethod
    def from_settings(
        cls,
        settings: Settings | None = None,
        *,
        data: MarketData,
        lists: ListSource | None = None,
        clock: Clock | None = None,
        broker_kind: BrokerKind = BrokerKind.PAPER,
        paper: PaperConfig | None = None,
        config: TradingConfig | None = None,
        rule_mode: bool = False,
        **more: Any,
    ) -> TradingContext:
        """Open the store that the environment chooses, an account at a broker, and the configured model, if there is one.

        Parameters
        ----------
        settings : Settings, optional
            Read from the environment when None.
        data : MarketData
        lists : ListSource, optional
            Sanctions lists; by default those in the folder ``sanctions`` of the home, without which everything is refused.
        clock : Clock, optional
            That of the machine when None.
        broker_kind : BrokerKind, default=BrokerKind.PAPER
            Whose account: by default one on paper, kept in the store. Whether real money is armed is decided here, once.
        paper : PaperConfig, optional
            Of the account on paper.
        config : TradingConfig, optional
        rule_mode : bool, default=False
            Leave the model out, even if one is configured.
        **more
            Further fields of the context.

        Raises
        ------
        ConfigurationError, StoreUnavailableError
            As `open_store`.
        ConfigurationError
            As `build_broker`.
        """
        settings, clock, config = settings or Settings.load(), clock or SystemClock(), config or TradingConfig()
        with ExitStack() as stack:
            store = open_store(settings)
            stack.callback(store.close)
            gateway = store.trading.gateway
            armed = broker_kind is not BrokerKind.PAPER and is_real_money_armed(settings, store, config)
            broker = build_broker(broker_kind, settings, gateway, clock, paper=paper or PaperConfig(), real_money_armed=armed)
            stack.callback(broker.close)
            chat = None
            if settings.has_model and not rule_mode:
                chat = OpenAIChat(settings, SpendingLog(gateway), config.chat, clock)
            gates = build_gates(
                store.trading,
                data,
                lists or SanctionsFiles(find_lists(settings.home / "sanctions")),
                clock,
                icarus=config.icarus,
                hades=config.hades,
                artemis=config.artemis,
            )
            fields: dict[str, Any] = {"gates": gates, "broker": broker, "chat": chat, "real_money_armed": armed} | more
            context = cls(store=store, data=data, clock=clock, config=config, **fields)
            stack.pop_all()
        return context

    def close(self) -> None:
        """Let go of the broker and close the store."""
        self.broker.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def is_real_money_armed(settings: Settings, store: Store, config: TradingConfig) -> bool:
    """Return whether real money may be touched: all are senior, `ARM_REAL_MONEY` is set and `AQF_PAPER_TRADING` is off."""
    tiers = {place.agent_name: place.tier for place in store.trading.list_seniority()}
    agents = config.limits.seniority.agents
    return may_trade_real_money(tiers, agents, arm_real_money=settings.arm_real_money, paper_trading=settings.paper_trading)


def find_lists(folder: Path) -> tuple[ListFile, ...]:
    """Return the sanctions lists of a folder: ``sdn.csv`` with ``alt.csv``, ``eu.xml``, ``un.xml``.

    Notes
    -----
    OFAC's is always among them: where it is missing, reading the lists fails and everything is refused.
    """
    others = ((ListFormat.EU, folder / "eu.xml"), (ListFormat.UN, folder / "un.xml"))
    found = [ListFile(format=kind, path=path) for kind, path in others if path.exists()]
    return (ListFile(format=ListFormat.OFAC, path=folder / "sdn.csv"), *found)
