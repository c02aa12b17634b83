"""Write the replayed headlines and filings of `use_cases/supplier_disruption`: invented, every one, and the same every time.

    python scripts/write_replayed_news.py

Suppliers, events and figures are made up; the tickers are real, so that prices exist to trade against. Times and words are
drawn without a look at any price: whoever finds an edge in them has found chance.
"""

import csv
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

TARGET = Path(__file__).resolve().parents[1] / "use_cases" / "supplier_disruption" / "replayed_news.csv"
COLUMNS = ("kind", "occurred_at", "published_at", "ticker", "supplier", "category", "urgency", "headline", "summary")
FIRST, LAST, A_YEAR = datetime(2008, 1, 1), datetime(2022, 12, 15), 60  # noqa: DTZ001
TICKERS = (
    "AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO", "LLY", "MRK", "MSFT", "PEP", "PFE", "PG", "RRC", "UNH",
    "WMT", "XOM",
)  # fmt: skip
SUPPLIERS = (
    "Fictive Harbor Castings",
    "Invented Basin Logistics",
    "Madeup Valley Chemicals",
    "Nowhere Point Semiconductors",
    "Imaginary Fjord Packaging",
    "Pretend Plains Software",
    "Storybook River Turbines",
    "Fabled Isle Pharma Inputs",
)
STORIES = (
    # kind, category, urgency, chance, headline, summary
    (
        "news",
        "supply_chain",
        "high",
        0.24,
        "{s} halts a plant that serves {t}",
        "A fire, invented for this replay, closed the plant.",
    ),
    ("news", "supply_chain", "medium", 0.14, "{s} warns of late deliveries to {t}", "Invented: a port is congested for weeks."),
    (
        "filing",
        "supply_chain",
        "high",
        0.10,
        "{t} reports a shortfall of parts from {s}",
        "Invented 8-K: a contract is suspended.",
    ),
    ("filing", "regulatory", "high", 0.08, "Regulator opens an inquiry into {s}, a supplier of {t}", "Invented 8-K."),
    ("news", "partnership", "medium", 0.14, "{s} resumes full deliveries to {t}", "Invented: the plant is repaired."),
    ("news", "partnership", "medium", 0.12, "{t} wins a second source beside {s}", "Invented: a new contract is signed."),
    (
        "filing",
        "earnings",
        "high",
        0.10,
        "{t} beats its plan as deliveries from {s} recover",
        "Invented 8-K with preliminary figures.",
    ),
    ("filing", "other", "low", 0.08, "{t} files its 10-Q and mentions {s}", "Invented and routine."),
)


def main() -> None:
    """Draw the stories and write the file."""
    rng = np.random.default_rng(20_081_001)
    eastern, utc = ZoneInfo("America/New_York"), ZoneInfo("UTC")
    days = (LAST - FIRST).days
    chances = np.array([story[3] for story in STORIES])
    rows = []
    for _ in range(int(A_YEAR * days / 365.25)):
        day = FIRST + timedelta(days=int(rng.integers(days)))
        while day.weekday() > 4:
            day += timedelta(days=1)
        published = day.replace(hour=int(rng.integers(7, 16)), minute=int(rng.integers(60)), tzinfo=eastern).astimezone(utc)
        kind, category, urgency, _, headline, summary = STORIES[int(rng.choice(len(STORIES), p=chances))]
        ticker, supplier = str(rng.choice(TICKERS)), str(rng.choice(SUPPLIERS))
        occurred = published - timedelta(hours=int(rng.integers(1, 72)))
        words = {"t": ticker, "s": supplier}
        about = (ticker, supplier, category, urgency)
        rows.append((kind, occurred.isoformat(), published.isoformat(), *about, headline.format(**words), summary))
    with TARGET.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows, key=lambda row: (row[2], row[3], row[7])))


if __name__ == "__main__":
    main()
