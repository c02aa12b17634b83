"""Which broker the settings mean.

Hides how each broker is built from what the environment says. Promises that a broker whose keys or whose library are
missing is an error with the remedy, before anything is sent.
"""

from __future__ import annotations

from enum import StrEnum

from agents.brokers.broker import Broker
from agents.brokers.paper import PaperBroker, PaperConfig
from core.clock import Clock
from core.settings import Settings
from core.store.gateway import Gateway


class BrokerKind(StrEnum):
    """The brokers there are, by their names."""

    PAPER = "paper"
    ALPACA = "alpaca"
    IB = "ib"


def build_broker(
    kind: BrokerKind, settings: Settings, gateway: Gateway, clock: Clock, *, paper: PaperConfig, real_money_armed: bool
) -> Broker:
    """Return a broker that is not connected yet.

    Parameters
    ----------
    kind : BrokerKind
    settings : Settings
        Where the real brokers are, and the keys.
    gateway : Gateway
        Keeps the account of the paper broker.
    clock : Clock
        Of the paper broker; real ones have their own.
    paper : PaperConfig
        Of the paper broker.
    real_money_armed : bool
        Whether all conditions of real money hold.

    Raises
    ------
    ConfigurationError
        If keys or the library are missing, or the address is one of real money, which is not armed.
    """
    # Imported where they are chosen: a desk on paper does not load what it does not use.
    if kind is BrokerKind.ALPACA:
        from agents.brokers.alpaca import AlpacaBroker, AlpacaConfig

        key_id, secret = settings.require_alpaca_keys()
        return AlpacaBroker(
            AlpacaConfig(endpoint=settings.alpaca_endpoint or AlpacaConfig.endpoint),
            api_key=key_id.get_secret_value(),
            secret_key=secret.get_secret_value(),
            real_money_armed=real_money_armed,
        )
    if kind is BrokerKind.IB:
        from agents.brokers.ib import IBBroker, IBConfig

        config = IBConfig(
            host=settings.ib_host or IBConfig.host,
            port=settings.ib_port or IBConfig.port,
            account=settings.ib_account or IBConfig.account,
        )
        return IBBroker(config, real_money_armed=real_money_armed)
    return PaperBroker(gateway, paper, clock)
