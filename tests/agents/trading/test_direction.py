"""Which way headlines point: what may be bought, and what may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.direction import is_negative
from core.types import SignalCategory
from tests.agents.trading.desk import signal

GOOD_NEWS = {
    SignalCategory.REGULATORY_ACTION: """
        FDA approves Pfizer's cancer drug
        Microsoft's takeover of Activision is approved by the EU
        Acme wins approval for its heart valve
        Acme receives marketing approval in Japan
        Regulator clears Microsoft to buy Activision
        Boeing cleared of wrongdoing
        Boeing cleared after a two-year probe
        FAA lifts ban on the Boeing 737 MAX
        Ban on the Boeing 737 MAX lifted
        EU lifts tariffs on American steel
        FAA restores Boeing's right to certify its own aircraft
        Antitrust probe into Apple resolved
        Regulator eases rules for banks
    """,
    SignalCategory.SUPPLIER_DISRUPTION: """
        Foxconn resumes production at its Zhengzhou plant
        Supplier of Microsoft restarts production after fire
        Deliveries to AAPL recover: the port is cleared
        Port of Los Angeles reopens after a week-long strike
        Power restored at TSMC's Tainan plant
        Chip shortage eases
        Congestion at ports eased in June
        Supplier recovers from cyberattack
        Dispute with the dockworkers is resolved
        Shipments to Ford resume
        TSMC resumes output after earthquake
    """,
    SignalCategory.MACRO_SHIFT: """
        Inflation eases
        Inflation eased more than forecast
        Trade tensions are easing
        ECB eases policy
        Consumer confidence recovers
        Congress approves stimulus
        Unemployment eases to 3.9 percent
    """,
    SignalCategory.EARNINGS_SURPRISE: """
        Microsoft beats estimates
        Microsoft raises guidance
        Microsoft posts record revenue
        Acme tops estimates and raises its dividend
        Profit up 30 percent at Acme
        Quarterly sales surge at Acme
        Acme reports quarterly earnings
        Acme lifts outlook as chip shortage eases
        Acme's earnings per share rise to $2.10, above forecasts
        Acme is No. 1 in phones again, sales jump 12%
    """,
    SignalCategory.POSITIVE_NEWS: """
        Microsoft wins large cloud contract
        Acme signs a contract with Boeing
        Apple and Goldman strike a deal
        Acme strikes partnership with Samsung
        Acme to acquire Beta for $2 billion
        Acme completes the acquisition of Beta
        Apple unveils a new phone
        Apple to launch a phone this fall
        Acme raises $100 million
        Acme announces record revenue and share buyback
        Storybook River Turbines resumes full deliveries to AAPL
        Shareholders approve the merger of Acme and Beta
        Acme resumes production after fire
        Acme launches a fine-tuning service
        Acme upgraded to buy
        Warner Bros signs a streaming deal
        Block launches a payment card
        Costco opens 30 stores
        Acme launches 5-year partnership with Beta
        Acme opens a 10-15 megawatt plant
        Acme expands its fleet of tankers
        Boeing delivers its first 787-9
    """,
}
BAD_NEWS = {
    SignalCategory.REGULATORY_ACTION: """
        EU imposes record fine on Microsoft
        FDA raises safety concerns about Pfizer's drug
        Acme fails to win approval for its heart valve
        Heart valve of Acme not approved
        FDA hasn't approved Acme's drug
        FDA denies approval of Acme's drug
        FDA halts approval of Acme's drug
        Approval of Acme's drug withdrawn
        Approval of Acme's drug delayed
        Approval rejected for Acme's merger
        Will the FDA approve Acme's drug?
        Acme seeks approval for its drug
        Acme awaits approval for its drug
        Approval may come in June
        Acme files for FDA approval
        Court approves class action against Microsoft
        Regulator clears the way for lawsuit against Microsoft
        Regulator clears the way for a generic
        FDA approves drug of Pfizer's rival
        EU approves tariffs on electric cars
        Lawmakers approve ban on TikTok
        Approval of the merger unlikely
        Acme under inquiry
        FTC resumes its lawsuit against Meta
        EU restores sanctions on Acme
        Ban on Acme not lifted
        FAA to lift ban on Boeing's jet
        Regulator refuses to lift ban on Acme
        Acme resolves case and is fined $2 billion
        Regulator disapproves of the merger
        Acme's device is still unapproved
        Acme resumes production after fire kills three
    """,
    SignalCategory.SUPPLIER_DISRUPTION: """
        Supplier of Microsoft raises prices by 20 percent
        Strike at supplier tops third week
        Fire halts supplier of Microsoft
        Strike resumes at supplier of Ford
        Workers approve strike at Boeing
        Supplier fails to resume production
        Supplier hopes to resume production in May
        Production will resume when the strike is over
        Production only partly restored
        Plant reopens, then shuts again
        Acme resumes talks with striking workers
        Shortage eases but prices surge
        Chip shortage lifts prices
        Production resumed? Not so fast
        Record shortage of chips
        Fire hits plant as chip shortage eases
        Deliveries not restored until 2026
    """,
    SignalCategory.MACRO_SHIFT: """
        Unemployment hits record
        Oil surges after pipeline attack
        Inflation tops forecasts
        Fed raises rates
        Fed cuts rates
        Tariffs on parts
        Acme announces mass layoffs
        Growth eases to 1 percent
        Economy fails to recover
        Inflation is unlikely to ease
        Markets rally
        Recovery stalls
        Congress approves new tariffs
        Oil surge lifts inflation
        Tariffs lifted inflation
        Strike hits ports as inflation eases
        Senate approves bill on drug prices
    """,
    SignalCategory.EARNINGS_SURPRISE: """
        Acme's profit falls 30 percent
        Microsoft guidance lowered
        Microsoft misses earnings estimates, shares fall
        Acme beats estimates but cuts guidance
        Acme posts record loss
        Acme warns of weak quarter
        Acme withdraws its outlook
        Acme suspends its dividend
        Revenue below forecasts
        Acme writes off $1 billion, shares sink
        Acme does not raise its guidance
        Acme didn't beat estimates
        Did Acme beat estimates?
        Sales slow at Acme
        Impairment at Acme
        Profit halved at Acme
        Acme restates its results
        Sales at Acme stagnate
        Operating margin contracts at Acme
        Acme profit drops despite record revenue
        Acme beats but guides low
        Acme beats estimates and guides sales low
        Acme reports EPS of -$1.20
        Acme reports EPS of $-1.20
        Acme reports EPS of \u22121.20
        Acme reports earnings of ($0.40) a share
        Profits evaporate at Acme
        Shares of Acme tank on results
    """,
    SignalCategory.POSITIVE_NEWS: """
        Microsoft's acquisition of Activision blocked by court
        Acme loses a contract
        Acme cancels launch of its phone
        Beta rejects Acme's bid
        Talks on merger of Acme and Beta collapse
        Microsoft partnership collapses, shares plunge
        Acme walks away from Beta
        Acme ends its partnership with Beta
        Rival wins contract of Acme
        Acme recalls its new phone
        Acme recall ends in record sales
        Launch of Acme's phone postponed
        Funding round of Acme fails
        Acme sues its partner
        No deal for Acme and Beta
        Is Acme about to buy Beta?
        FDA approval of Acme's patch is revoked
        Acme won’t buy Beta
        A fire at Acme
        Court throws out Acme's merger with Beta
        Acme and Beta call off their merger
        FTC challenges Microsoft's Activision deal
        Tesla recalls 2 million cars
        Acme shares tank after FDA approval of competitor
        Acme charged by SEC
        Acme subpoenaed by DOJ
        Acme receives subpoenas from the DOJ
        Acme files for Chapter 11
        Acme enters chapter seven
        Acme seeks creditor protection
        Acme CEO arrested
        Arrest of Acme's chairman
        Acme headquarters raided by police
        Police raid Acme
        Acme ordered to pay $3bn
        Acme hit with $2 billion verdict
        Profits evaporate
        Short seller report alleges Acme cooked its books
        Short-seller takes aim at Acme
        Former employee accuses Acme
        Robot of Acme kills worker
    """,
    SignalCategory.NEUTRAL: """
        Acme files its 10-Q
    """,
}


def rows(table: dict[SignalCategory, str]) -> list[tuple[SignalCategory, str]]:
    return [(category, line.strip()) for category, lines in table.items() for line in lines.splitlines() if line.strip()]


@pytest.mark.parametrize(("category", "headline"), rows(GOOD_NEWS))
def test_good_news_is_bought(category: SignalCategory, headline: str) -> None:
    assert not is_negative(signal(category=category, headline=headline))


@pytest.mark.parametrize(("category", "headline"), rows(BAD_NEWS))
def test_bad_and_doubtful_news_is_not_bought(category: SignalCategory, headline: str) -> None:
    assert is_negative(signal(category=category, headline=headline))


@pytest.mark.parametrize(("category", "headline"), rows(GOOD_NEWS))
@pytest.mark.parametrize("more", ["?", ", but the court rejects it", " - not", "; shares plunge"])
def test_a_word_of_doubt_outweighs_every_good_one(category: SignalCategory, headline: str, more: str) -> None:
    assert is_negative(signal(category=category, headline=headline + more))


@given(st.sampled_from(rows(GOOD_NEWS) + rows(BAD_NEWS)), st.sampled_from([str.upper, str.title, str.lower]))
def test_capital_letters_change_nothing(row: tuple[SignalCategory, str], write: object) -> None:
    category, headline = row
    written = write(headline)  # type: ignore[operator]
    assert is_negative(signal(category=category, headline=written)) is (row in rows(BAD_NEWS))
