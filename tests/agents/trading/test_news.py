import pytest

from agents.trading.news import (
    CATEGORIES,
    NewsCategory,
    Urgency,
    classify,
    find_tickers,
    read_news_category,
    read_severity,
)
from core.errors import DataError
from core.types import Severity, SignalCategory


@pytest.mark.parametrize(
    ("names", "category"),
    [
        ("supply_chain pricing", SignalCategory.SUPPLIER_DISRUPTION),
        ("regulatory", SignalCategory.REGULATORY_ACTION),
        ("earnings", SignalCategory.EARNINGS_SURPRISE),
        ("layoffs macro", SignalCategory.MACRO_SHIFT),
        ("acquisition funding product partnership", SignalCategory.POSITIVE_NEWS),
        ("other", SignalCategory.NEUTRAL),
    ],
)
def test_every_category_of_a_source_has_one_of_ours(names: str, category: SignalCategory) -> None:
    assert {CATEGORIES[NewsCategory(name)] for name in names.split()} == {category}


def test_no_category_of_a_source_is_left_out() -> None:
    assert set(CATEGORIES) == set(NewsCategory)


@pytest.mark.parametrize("name", ["Supply Chain", "supply-chain", " SUPPLY_CHAIN "])
def test_a_category_is_read_however_it_is_spelled(name: str) -> None:
    assert read_news_category(name) is NewsCategory.SUPPLY_CHAIN


@pytest.mark.parametrize("name", ["", "weather", "supply"])
def test_an_unknown_category_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="must be one of"):
        read_news_category(name)


@pytest.mark.parametrize(
    ("urgency", "significant", "severity"),
    [
        ("low", False, Severity.LOW),
        ("low", True, Severity.LOW),
        ("medium", True, Severity.MEDIUM),
        ("high", False, Severity.HIGH),
        ("high", True, Severity.CRITICAL),
    ],
)
def test_severity_is_the_urgency_and_critical_when_significant_too(urgency: str, significant: bool, severity: Severity) -> None:
    assert read_severity(Urgency(urgency), significant=significant) is severity


@pytest.mark.parametrize(
    ("text", "category", "urgency", "significant"),
    [
        ("Supplier halts production after a fire", NewsCategory.SUPPLY_CHAIN, Urgency.HIGH, False),
        ("Worst shortage in years as port closures spread", NewsCategory.SUPPLY_CHAIN, Urgency.MEDIUM, True),
        ("Firm to cut 1,000 jobs: layoffs begin", NewsCategory.LAYOFFS, Urgency.MEDIUM, False),
        ("Regulator opens antitrust probe", NewsCategory.REGULATORY, Urgency.MEDIUM, False),
        ("Quarterly profit beats estimates", NewsCategory.EARNINGS, Urgency.MEDIUM, False),
        ("Firm raises prices again", NewsCategory.PRICING, Urgency.MEDIUM, False),
        ("Chip maker acquires rival", NewsCategory.ACQUISITION, Urgency.MEDIUM, False),
        ("Federal Reserve leaves rates", NewsCategory.MACRO, Urgency.MEDIUM, False),
        ("Company unveils phone", NewsCategory.PRODUCT, Urgency.MEDIUM, False),
        ("Firefly season opens in the park", NewsCategory.OTHER, Urgency.LOW, False),
        ("", NewsCategory.OTHER, Urgency.LOW, False),
    ],
)
def test_a_plain_text_is_read_by_its_words(text: str, category: NewsCategory, urgency: Urgency, significant: bool) -> None:
    assert classify(text) == (category, urgency, significant)


@pytest.mark.parametrize(
    ("text", "tickers"),
    [
        ("Apple (NASDAQ: AAPL) and Boeing (NYSE:BA) fall", ("AAPL", "BA")),
        ("Berkshire (NYSE: BRK.B), again (NYSE: BRK.B)", ("BRK.B",)),
        ("Buy $TSLA, not $5 or US$100", ("TSLA",)),
        ("Siemens (XETRA: SIE) and Infineon (Xetra: IFX)", ("SIE", "IFX")),
        ("NYSE says IBM is fine", ()),
        ("the nyse: ba is lower case", ()),
    ],
)
def test_tickers_are_those_that_a_text_marks(text: str, tickers: tuple[str, ...]) -> None:
    assert find_tickers(text) == tickers
