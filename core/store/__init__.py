"""Every byte that lasts: the database, its records, and files."""

from core.store.opening import Store, open_store
from core.store.research import ResearchStore

__all__ = ["ResearchStore", "Store", "open_store"]
