"""The companies that ship: that their names lead to them, and to nothing else."""

import re
from pathlib import Path

import pytest

from agents.trading.companies import company_sectors, load_companies, with_companies
from agents.trading.hades import Hades, HadesConfig
from agents.trading.sanctions import FictitiousLists
from agents.trading.tickers import PRIVATE_COMPANIES, TickerMap
from core.clock import FixedClock
from core.market import load_dataset
from core.store.trading_records import Exchange, TickerMapping
from tests.agents.trading.signals import NOW, signal

SEED = Path(__file__).resolve().parents[3] / "supabase" / "seed.sql"
SECTORS = {
    "communication services", "consumer discretionary", "consumer staples", "energy", "financials", "health care",
    "industrials", "information technology", "materials", "real estate", "utilities",
}  # fmt: skip


@pytest.fixture(scope="module")
def tickers() -> TickerMap:
    return TickerMap(with_companies([]))


def test_every_name_that_ships_leads_to_its_ticker(tickers: TickerMap) -> None:
    wrong = {
        name: tickers.resolve(name)
        for company in load_companies()
        for name in company.names
        if tickers.resolve(name).ticker != company.ticker
    }
    assert wrong == {}


def test_there_are_a_hundred_large_companies_each_of_one_of_the_eleven_sectors() -> None:
    companies = load_companies()
    assert len(companies) >= 100
    assert len({company.ticker for company in companies}) == len(companies)
    assert {company.sector for company in companies} == SECTORS
    assert set(load_dataset("sp500_20").symbols) <= set(company_sectors())


@pytest.mark.parametrize(
    ("name", "ticker"),
    [
        ("Apple Inc.", "AAPL"),
        ("APPLE INC", "AAPL"),
        ("Exxon", "XOM"),
        ("Google", "GOOGL"),
        ("Merck", "MRK"),
        ("Merck & Co", "MRK"),
        ("Merck KGaA", None),
        ("Apple Hospitality REIT", None),
        ("Delta", None),
        ("Meta Materials", None),
    ],
)
def test_a_company_is_told_from_others_of_a_like_name(tickers: TickerMap, name: str, ticker: str | None) -> None:
    assert tickers.resolve(name).ticker == ticker


def test_private_companies_stay_without_a_ticker(tickers: TickerMap) -> None:
    assert [name for name in PRIVATE_COMPANIES if tickers.resolve(name).ticker is not None] == []


def test_what_the_store_says_of_a_name_comes_first_and_what_ships_stays_behind_it() -> None:
    stored = [TickerMapping(supplier_name="APPLE INC", ticker="APLX", exchange=Exchange.NYSE)]
    tickers = TickerMap(with_companies(stored))
    assert {tickers.resolve(name).ticker for name in ("Apple", "Apple Inc.", "apple corporation")} == {"APLX"}
    assert tickers.resolve("Microsoft").ticker == "MSFT"


def test_the_seed_of_a_database_agrees_with_what_ships() -> None:
    rows = re.findall(r"\('([^']+)', '([A-Z0-9]+)', '(NASDAQ|NYSE)'\)", SEED.read_text(encoding="utf-8"))
    assert len(rows) == 14
    shipped = {name: (company.ticker, company.exchange.value) for company in load_companies() for name in company.names}
    assert {name: shipped.get(name) for name, _, _ in rows} == {name: (ticker, exchange) for name, ticker, exchange in rows}


def test_no_company_that_ships_is_taken_for_a_listed_one() -> None:
    names = {company.ticker: company.names for company in load_companies()}
    hades = Hades(FictitiousLists(FixedClock(NOW)), HadesConfig(), FixedClock(NOW), names.__getitem__)
    near = [ticker for ticker in names if hades.screen(signal(affected_tickers=(ticker,))).matched_entry is not None]
    assert near == []
