"""ResearchStore, and the nouns it is made of."""

from core.store.research.datasets import DEFAULT_SEALED_FRACTION
from core.store.research.store import ResearchStore

__all__ = ["DEFAULT_SEALED_FRACTION", "ResearchStore"]
