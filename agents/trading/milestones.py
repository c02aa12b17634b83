"""Stages of the equity: what each allows, and the part of the profit that is put away when one is reached.

Hides where the vault is kept. Promises that profit is counted once: each crossing takes its share of what was gained since
the last one, whatever path the equity took, and that money paid in is not profit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from core.errors import DataError
from core.message import Message, Rule, refuse
from core.store.trading import TradingStore
from core.store.trading_records import MilestoneStage, MilestoneState
from core.types import Count, Fraction, NotNegative

Tier = Annotated[int, Rule(expected="a tier in 1..3", holds=lambda number: 1 <= number <= 3)]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRules(Message):
    """What a stage of the equity allows.

    Parameters
    ----------
    stage : MilestoneStage
    from_equity : float
        Equity at which the stage begins, in the account's currency.
    max_size : float
        Largest position, as a fraction of equity.
    kill_drawdown : float
        Drawdown from the peak at which trading halts, as a fraction.
    max_positions : int
        Open positions, entries that may still fill included.
    max_tier : int
        Confidence tiers 1 to this one are admitted; 1 is the most confident.
    """

    stage: MilestoneStage
    from_equity: NotNegative
    max_size: Fraction
    kill_drawdown: Fraction
    max_positions: Count
    max_tier: Tier


_STAGES = (
    # from equity, largest size, kill at drawdown, positions, tiers
    (MilestoneStage.SEED, 0.0, 0.01, 0.05, 3, 1),
    (MilestoneStage.SPRINT, 1e3, 0.02, 0.06, 5, 2),
    (MilestoneStage.SCALE, 1e4, 0.03, 0.07, 8, 2),
    (MilestoneStage.SERIOUS, 1e5, 0.05, 0.08, 10, 3),
    (MilestoneStage.EMPIRE, 1e6, 0.03, 0.05, 15, 3),
)


def _stages() -> tuple[StageRules, ...]:
    return tuple(
        StageRules(stage=stage, from_equity=start, max_size=size, kill_drawdown=kill, max_positions=positions, max_tier=tier)
        for stage, start, size, kill, positions, tier in _STAGES
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MilestonesConfig(Message):
    """The stages, smallest first, and the share of profit that is put away.

    Parameters
    ----------
    stages : tuple of StageRules
    vault_share : float, default=0.3
        Of the profit since the last crossed stage.

    Raises
    ------
    DataError
        If the stages do not begin at 0 or do not rise.
    """

    stages: tuple[StageRules, ...] = field(default_factory=_stages)
    vault_share: Fraction = 0.3

    def _check(self) -> None:
        starts = [rules.from_equity for rules in self.stages]
        if not starts or starts[0] != 0.0 or sorted(set(starts)) != starts:
            raise refuse(self, "stages", "stages that begin at 0 and rise", starts)

    def rules(self, equity: float) -> StageRules:
        """Return what the stage of an equity allows.

        Raises
        ------
        DataError
            If `equity` is not a number of 0 or more.
        """
        _check_money("equity", equity)
        return [rules for rules in self.stages if rules.from_equity <= equity][-1]


def start_milestones(config: MilestonesConfig, equity: float) -> MilestoneState:
    """Return the state of an account that begins with `equity`: its stage and those below are not crossed again."""
    reached = config.rules(equity)
    crossed = tuple(rules.stage for rules in config.stages if rules.from_equity <= reached.from_equity)
    return MilestoneState(milestone_origin=equity, crossed_stages=crossed)


def cross_milestones(config: MilestonesConfig, state: MilestoneState, equity: float) -> MilestoneState:
    """Return the state after an equity was seen: a new stage vaults its share of the profit and becomes the new origin.

    Parameters
    ----------
    equity : float
        All that the account holds, the vault included.

    Notes
    -----
    Several stages crossed at once are one crossing. A stage that was crossed before, fallen below and reached again changes
    nothing.
    """
    reached = config.rules(equity)
    new = [
        rules.stage
        for rules in config.stages
        if rules.from_equity <= reached.from_equity and rules.stage not in state.crossed_stages
    ]
    if not new:
        return state
    vaulted = config.vault_share * max(0.0, equity - state.milestone_origin)
    return MilestoneState(
        milestone_origin=equity,
        vault_balance=state.vault_balance + vaulted,
        total_vaulted=state.total_vaulted + vaulted,
        crossed_stages=(*state.crossed_stages, *new),
    )


def move_money(state: MilestoneState, amount: float) -> MilestoneState:
    """Return the state after money was paid in, or out where `amount` is negative: neither is profit or loss.

    Raises
    ------
    DataError
        If `amount` is not finite.
    """
    _check_money("amount", abs(amount))
    return replace(state, milestone_origin=max(0.0, state.milestone_origin + amount))


class Milestones:
    """Keep the milestones of the one account in the store.

    Parameters
    ----------
    store : TradingStore
    config : MilestonesConfig, optional

    Raises
    ------
    DataError
        From any method, if an equity or an amount is not a number of 0 or more.
    StoreError
        From any method, when the store refused or cannot be reached: nothing changed then.
    """

    def __init__(self, store: TradingStore, config: MilestonesConfig | None = None) -> None:
        self.config = config or MilestonesConfig()
        self._store = store
        self._state = store.load_milestones()

    @property
    def state(self) -> MilestoneState | None:
        """Vault and crossed stages; None before the first equity was seen."""
        return self._state

    def observe(self, equity: float) -> tuple[MilestoneStage, ...]:
        """Take note of the account's equity, vault included, and return the stages that were crossed by it."""
        if self._state is None:
            self._keep(start_milestones(self.config, equity))
            return ()
        before = self._state
        after = cross_milestones(self.config, before, equity)
        if after != before:
            self._keep(after)
        return after.crossed_stages[len(before.crossed_stages) :]

    def reload(self) -> None:
        """Read the state again, which whoever writes down money from outside changes with it."""
        self._state = self._store.load_milestones()

    def rules(self, equity: float) -> StageRules:
        """Return what the stage of the account's equity, vault included, allows."""
        return self.config.rules(equity)

    def sized_equity(self, equity: float) -> float:
        """Return what may be sized on: the account's equity without the vault, 0 where losses have reached it."""
        _check_money("equity", equity)
        return max(0.0, equity - (0.0 if self._state is None else self._state.vault_balance))

    def _keep(self, state: MilestoneState) -> None:
        self._store.save_milestones(state)
        self._state = state


def _check_money(name: str, amount: float) -> None:
    if not 0.0 <= amount < float("inf"):
        raise DataError(f"`{name}` must be a finite amount of money of 0 or more, was {amount!r}.")
