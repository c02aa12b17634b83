"""`aqf trade --broker`: rounds at Alpaca's stub and at the scripted gateway, and what is refused before anything is sent."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import httpx
import pytest

from agents.trading.context import TradingConfig
from core.errors import ConfigurationError
from core.settings import Settings
from core.store.opening import open_store
from core.store.trading_records import Seniority, SeniorityTier
from tests.agents.brokers.worlds import alpaca_world, ib_world
from tests.aqf.test_trade_command import Run, home, news, prices, run

__all__ = ["home", "news", "prices", "run"]

needs_alpaca = pytest.mark.skipif(importlib.util.find_spec("alpaca") is None, reason="alpaca-py is not installed")
needs_ib = pytest.mark.skipif(importlib.util.find_spec("ib_async") is None, reason="ib_async is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning")

EQUITY, CAP, PRICE = 100_000.0, 0.01, 200.0
"""The account, the share of it that a system of trainees may use, and the price in the file."""


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_KEY_ID", "key")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "secret")


def one_round(prices: Path, news: Path, *more: str) -> tuple[str, ...]:
    return ("--once", *more, "--data", str(prices), "--news", str(news), "--fictitious-lists", "--json")


@needs_alpaca
@pytest.mark.usefixtures("keys")
def test_a_round_places_one_bracket_at_alpaca_and_the_next_none(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alpaca_world() as world:
        monkeypatch.setenv("AQF_ALPACA_ENDPOINT", world.address)
        first = run(*one_round(prices, news, "--broker", "alpaca"))
        assert first.exit_code == 0, first.output
        told = json.loads(first.stdout)
        (trace,) = told["traces"]
        assert (told["equity"], trace["symbol"], trace["status"]) == (EQUITY, "AAPL", "submitted")
        (order,) = [one for one in world.exchange.orders if "parent" not in one]
        assert (order["symbol"], order["side"], order["order_class"]) == ("AAPL", "buy", "bracket")
        assert float(order["qty"]) == EQUITY * CAP // float(order["limit_price"])

        looped = ("--loop", "1", "--rounds", "2", "--calendar", "24/7", *one_round(prices, news, "--broker", "alpaca")[1:])
        later = run(*looped)
        assert later.exit_code == 0, later.output
        assert [json.loads(line)["traces"] for line in later.stdout.splitlines()] == [[], []]
        assert world.exchange.requests.count("POST /v2/orders") == 1

        world.fill(order["client_order_id"], float(order["qty"]), PRICE)
        run(*one_round(prices, news, "--broker", "alpaca"))
        (held,) = json.loads(run("positions", "--json").stdout)
        assert (held["symbol"], held["qty"], held["avg_cost"]) == ("AAPL", float(order["qty"]), PRICE)


@needs_alpaca
@pytest.mark.usefixtures("keys")
def test_a_store_in_which_alpaca_was_traded_refuses_the_paper_account(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alpaca_world() as world:
        monkeypatch.setenv("AQF_ALPACA_ENDPOINT", world.address)
        assert run(*one_round(prices, news, "--broker", "alpaca")).exit_code == 0
        refused = run(*one_round(prices, news))
        assert isinstance(refused.exception, ConfigurationError)
        assert "book of account PA1 at alpaca, and the broker is paper" in str(refused.exception)
        assert run("status", "--json").stdout.count('"halts": []') == 1
        assert run(*one_round(prices, news, "--broker", "alpaca")).exit_code == 0


@needs_alpaca
@pytest.mark.usefixtures("keys")
def test_alpaca_that_does_not_answer_refuses_the_signal_and_says_so(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQF_ALPACA_ENDPOINT", "http://127.0.0.1:9")
    done = run(*one_round(prices, news, "--broker", "alpaca"))
    assert done.exit_code == 1, done.output
    assert "the broker does not answer: " in done.stderr
    told = json.loads(done.stdout)
    assert told["broker_reachable"] is False
    (trace,) = told["traces"]
    assert trace["binding_constraint"] == "unknown_equity"


@needs_ib
def test_a_round_places_one_bracket_at_tws_and_the_next_none(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ib_world() as world:
        monkeypatch.setenv("AQF_IB_PORT", str(world.port))
        first = run(*one_round(prices, news, "--broker", "ib"))
        assert first.exit_code == 0, first.output
        (trace,) = json.loads(first.stdout)["traces"]
        assert (trace["symbol"], trace["status"]) == ("AAPL", "submitted")
        entry, *exits = world.gateway.tickets
        assert (entry.symbol, entry.action) == ("AAPL", "BUY")
        assert [(one.action, one.parent_id) for one in exits] == [("SELL", entry.order_id)] * 2
        assert json.loads(run(*one_round(prices, news, "--broker", "ib")).stdout)["traces"] == []
        assert len(world.gateway.tickets) == 3


@needs_ib
def test_an_account_of_real_money_behind_tws_is_refused(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ib_world() as world:
        world.gateway.accounts = "U123"
        monkeypatch.setenv("AQF_IB_PORT", str(world.port))
        done = run(*one_round(prices, news, "--broker", "ib"))
        assert isinstance(done.exception, ConfigurationError)
        assert world.gateway.tickets == []


@pytest.mark.usefixtures("keys")
def test_prices_of_alpaca_are_asked_for_with_the_accounts_keys(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.headers["APCA-API-KEY-ID"], request.headers["APCA-API-SECRET-KEY"]) == ("key", "secret")
        assert request.url.host == "data.alpaca.markets"
        trade = {"t": httpx.QueryParams(request.url.query)["end"], "p": 2 * PRICE}
        return httpx.Response(200, json={"trades": [trade] if "AAPL" in request.url.path else None, "bars": None})

    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=httpx.MockTransport(answer)))
    done = run(*one_round(prices, news, "--data", "alpaca"))
    assert done.exit_code == 0, done.output
    (trace,) = json.loads(done.stdout)["traces"]
    assert trace["status"] == "submitted"
    (entry,) = [one for one in json.loads(run("status", "--json").stdout)["open_orders"] if one["side"] == "buy"]
    assert entry["qty"] == 250_000.0 * CAP // (2 * PRICE)


@pytest.mark.parametrize("choice", ["--broker", "--data"])
def test_without_keys_alpaca_is_refused_in_one_line_with_the_remedy(run: Run, choice: str) -> None:
    done = run("--once", choice, "alpaca")
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception) == (
        "APCA_API_KEY_ID and APCA_API_SECRET_KEY are not set: make keys of a paper account at Alpaca and set both."
    )


@pytest.mark.parametrize(
    ("broker", "name", "value", "words"),
    [
        ("alpaca", "AQF_ALPACA_ENDPOINT", "https://api.alpaca.markets", "unless real money is armed"),
        ("ib", "AQF_IB_PORT", "4001", "unless it is armed"),
    ],
)
@pytest.mark.usefixtures("keys")
def test_real_money_is_refused_unless_all_three_conditions_hold(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch, broker: str, name: str, value: str, words: str
) -> None:
    if importlib.util.find_spec({"alpaca": "alpaca", "ib": "ib_async"}[broker]) is None:
        pytest.skip("its library is not installed")
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARM_REAL_MONEY", "true")
    monkeypatch.setenv("AQF_PAPER_TRADING", "false")
    done = run(*one_round(prices, news, "--broker", broker))
    assert isinstance(done.exception, ConfigurationError)
    assert words in str(done.exception)

    with open_store(Settings.load()) as store:
        for agent in TradingConfig().limits.seniority.agents:
            store.trading.save_seniority(Seniority(agent_name=agent, tier=SeniorityTier.SENIOR))
    # Armed: the endpoint passes, and what is refused now are lists that are made up.
    armed = run(*one_round(prices, news, "--broker", broker))
    assert isinstance(armed.exception, ConfigurationError)
    assert str(armed.exception).startswith("--fictitious-lists is for trying out")
