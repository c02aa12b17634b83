"""Every byte that lasts: the database, its records, and files."""

from core.store.opening import Store, open_store
from core.store.research import ResearchStore
from core.store.trading import TradingStore

__all__ = ["ResearchStore", "Store", "TradingStore", "open_store"]
