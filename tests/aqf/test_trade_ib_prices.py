"""`aqf trade --broker ib --data ib`: the account and the prices behind one gateway."""

import importlib.util
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.agents.brokers.scripted_prices import Listing
from tests.agents.brokers.worlds import ib_world
from tests.aqf.test_trade_command import Run, home, news, run

__all__ = ["home", "news", "run"]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ib_async") is None, reason="ib_async is not installed")


def test_a_round_reads_its_prices_from_tws_and_orders_there(run: Run, news: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    days = [(now.date() - timedelta(days=age), 50.0, 50.0, 50.0, 50.0, 1.0) for age in range(90, 0, -1)]
    with ib_world() as world:
        world.gateway.prices.listings += [
            Listing(1, "AAPL", last=(200.0, now - timedelta(minutes=17)), subscribed=False),
            Listing(2, "VIX", "IND", "CBOE", "", last=(18.0, now - timedelta(hours=1))),
            Listing(3, "SPX", "IND", "CBOE", "", days=days),
        ]
        monkeypatch.setenv("AQF_IB_PORT", str(world.port))
        done = run("--once", "--broker", "ib", "--data", "ib", "--news", str(news), "--fictitious-lists", "--json")
        assert done.exit_code == 0, done.output
        (trace,) = json.loads(done.stdout)["traces"]
        assert (trace["symbol"], trace["status"]) == ("AAPL", "submitted")
        assert {one.symbol for one in world.gateway.tickets} == {"AAPL"}
        assert world.gateway.tickets[0].limit == "200.0"
