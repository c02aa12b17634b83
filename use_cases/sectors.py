"""Sectors of the stocks in `sp500_20`, for the cap on positions of one sector.

Names of the Global Industry Classification Standard, as commonly published; General Electric as the industrial company it was
before 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_BY_SECTOR = {
    "information technology": ("AAPL", "AMD", "MSFT"),
    "financials": ("BAC", "JPM"),
    "consumer discretionary": ("BBY", "HD"),
    "consumer staples": ("KO", "PEP", "PG", "WMT"),
    "energy": ("CVX", "RRC", "XOM"),
    "industrials": ("GE",),
    "health care": ("JNJ", "LLY", "MRK", "PFE", "UNH"),
}

SECTORS: Mapping[str, str] = MappingProxyType({symbol: sector for sector, names in _BY_SECTOR.items() for symbol in names})
"""Sector by symbol."""
