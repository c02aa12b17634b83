"""Routine filings in every spelling, and news that looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.filings import RoutineFilings
from agents.trading.icarus import IcarusConfig

ROUTINE = RoutineFilings(IcarusConfig().routine_filings)

FILINGS = """
    10-K
    10-K - ACME CORP
    10-K: Apple Inc.
    10-K:Apple Inc.
    10-K | Apple Inc.
    10‑K – Apple Inc.
    10-k: apple inc.
    10K405: Acme Corp
    10-K405: Acme Corp
    10-KSB - ACME CORP
    10-K/A - ACME CORP
    10-K / A: Acme
    10-K (annual report) of Microsoft for 2024
    10-Q - ACME CORP: Results
    10-Q Microsoft Corporation quarterly report
    10-Q Microsoft Corporation
    10-Q for the quarter ended June 30, 2024
    8-K/A:Microsoft enters an agreement
    8-K/A - ACME CORP
    DEF14A: Acme Corp
    DEF 14A - Microsoft proxy statement
    DEF-14A: Acme Corp
    DEFA14A - ACME CORP
    PRE 14A: Acme
    NT 10-K - ACME CORP
    SC 13G/A - ACME CORP
    SCHEDULE 13G - ACME CORP
    20-F - Toyota Motor Corp
    6-K: Acme plc
    S-8 - ACME CORP
    13F-HR - BERKSHIRE HATHAWAY INC
    424B2 - JPMORGAN CHASE & CO
    Form 10-K
    Form 10-K: ACME CORP
    Form 10-K filed by Microsoft
    Form 10-K for Microsoft Corp.
    Form: 10-K - Acme
    SEC Form 4 filed by Jane Doe
    Form 4: Jane Doe
    Form 144 filed by Jane Doe
    4
    4 - Jane Doe
    144 - ACME CORP
    ARS - ACME CORP
    FWP - ACME CORP
    Proxy statement of Microsoft
    Proxy statement: Acme Corp
    Definitive proxy statement filed by Acme Corp.
    Preliminary Proxy Statement - Acme
    Microsoft files 10-K annual report
    Microsoft filed its annual report on Form 10-K
    Microsoft files 10K
    Acme, Inc. files its 10-Q for the second quarter
    Johnson & Johnson submits 10-Q
    Bank of America files quarterly report (Form 10-Q)
    MICROSOFT FILES 10-K ANNUAL REPORT
    Acme files definitive proxy statement
    Jane Doe files Form 4 with the SEC
"""
NEWS = """
    8-K - ACME: bankruptcy
    8-K: AAPL signs a contract
    8-K
    5 - year contract with the Navy
    5 - Year Contract With the Navy
    5-year contract with the Navy
    Company 3 - month outlook
    3 - month outlook of Acme is bleak
    3 - D printing at Acme
    4 - for-1 split at Acme
    4 plants are closed
    4 Plants Are Closed
    4: plants that are closed
    5 reasons why Acme wins
    144 jobs are cut at Acme
    10K jobs are cut at Acme
    10K Jobs Cut at Acme
    20 F and falling: cold snap halts Acme's plant
    10-Quarter record of contracts at Acme
    10-K annual report shows fraud
    10-K shows fraud at Acme
    10-K Shows Fraud
    10-K Reveals Fraud At Acme
    10-K-related probe at Acme
    10-K filed late by Acme
    10-KX is a robot
    ARS Pharmaceuticals Wins Approval
    ARS Pharmaceuticals wins approval
    Acme files its 10-K late
    Acme files 10-K/A restating three years
    Acme files 10-K and warns of bankruptcy
    BBY files its 10-Q and mentions Pretend Plains Software
    Acme Corp. files for bankruptcy after 10-K
    Acme files suit over 10-K
    Acme sued over its proxy statement
    Acme Files 5 Patents
    Fraud is found as Acme files 10-K
    Profit doubles, Acme says in its 10-K
    SEC Probes Acme Over 10-K
    Proxy statement reveals merger talks of Acme
    Proxy Statement Reveals Merger Talks
    Proxy fight at Acme
    Form of payment changes at Acme
    Formosa Plastics opens a plant
    Acme signs a contract
"""


def lines(table: str) -> list[str]:
    return [line.strip() for line in table.splitlines() if line.strip()]


@pytest.mark.parametrize("headline", lines(FILINGS))
def test_a_filing_is_known_in_every_spelling(headline: str) -> None:
    assert ROUTINE.find(headline) is not None


@pytest.mark.parametrize("headline", lines(NEWS))
def test_news_is_not_taken_for_a_filing(headline: str) -> None:
    assert ROUTINE.find(headline) is None


def test_the_kind_is_named_as_it_was_written() -> None:
    assert ROUTINE.find("Form 10-K405/A: Acme") == "10-K405/A"


def test_only_the_kinds_that_are_given_are_routine() -> None:
    only = RoutineFilings(["10-K"])
    assert (only.find("10-K: Acme"), only.find("10-Q: Acme")) == ("10-K", None)
    assert RoutineFilings([]).find("") is None


@given(st.text(max_size=200))
def test_no_headline_is_too_odd(headline: str) -> None:
    ROUTINE.find(headline)
