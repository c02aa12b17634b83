import pytest

from agents.trading.tickers import TickerMap
from core.store.trading_records import Exchange, TickerMapping


def mapping(name: str, ticker: str, exchange: Exchange = Exchange.NYSE) -> TickerMapping:
    return TickerMapping(supplier_name=name, ticker=ticker, exchange=exchange)


MAP = TickerMap(
    [
        mapping("Apple", "AAPL", Exchange.NASDAQ),
        mapping("Taiwan Semiconductor Manufacturing", "TSM"),
        mapping("Siemens", "SIEGY"),
        mapping("Siemens", "SIE", Exchange.XETRA),
        mapping("Infineon Technologies", "IFX", Exchange.XETRA),
        mapping("Delta Air Lines", "DAL"),
        mapping("Acme Steel Works", "ACM"),
        mapping("Acme Steel Works Ltd", "ACMX"),
        mapping("Stripe", "STRP"),
    ]
)


@pytest.mark.parametrize(
    ("name", "ticker"),
    [
        ("Apple", "AAPL"),
        ("  apple ", "AAPL"),
        ("Apple Inc.", "AAPL"),
        ("TAIWAN SEMICONDUCTOR MANUFACTURING CO LTD", "TSM"),
        ("Infineon Technologie AG", "IFX"),
        ("Infineon Technologies AG", "IFX"),
    ],
)
def test_a_company_is_found_by_its_name(name: str, ticker: str) -> None:
    assert MAP.resolve(name).ticker == ticker


def test_of_several_listings_the_preferred_exchange_is_taken() -> None:
    assert MAP.resolve("Siemens").ticker == "SIEGY"
    assert MAP.names_of("SIE") == ("Siemens",)


def test_exact_comes_before_near() -> None:
    assert MAP.resolve("Acme Steel Works Ltd").ticker == "ACMX"
    assert MAP.resolve("Acme Steel Works").ticker == "ACM"


def test_a_name_that_two_companies_share_has_no_ticker() -> None:
    resolved = MAP.resolve("Acme Steel Works Inc")
    assert resolved.ticker is None
    assert "ACM, ACMX" in resolved.reason


@pytest.mark.parametrize("name", ["Cargill", "Cargill, Incorporated", "SpaceX", "Huawei Ltd"])
def test_a_private_company_has_no_ticker(name: str) -> None:
    resolved = MAP.resolve(name)
    assert resolved.ticker is None
    assert "private" in resolved.reason


def test_a_private_company_that_the_map_names_went_public() -> None:
    assert MAP.resolve("Stripe").ticker == "STRP"


@pytest.mark.parametrize("name", ["Apple Hospitality", "Delta Galil", "Pineapple", "Taiwan Cement", "...", ""])
def test_another_company_is_not_in_the_map(name: str) -> None:
    assert MAP.resolve(name).ticker is None


def test_an_empty_map_knows_nobody() -> None:
    empty = TickerMap([])
    assert len(empty) == 0
    assert empty.resolve("Apple").ticker is None
    assert empty.names_of("AAPL") == ()
