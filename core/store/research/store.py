"""ResearchStore: everything the research side keeps, over a Gateway; each noun has its module beside this one.

Hides tables and functions; gives and takes records. It acts with the rights of its gateway's role: built on the
`researcher` role it sees no sealed bar and cannot change a trial.
"""

from __future__ import annotations

from core.store.gateway import Gateway
from core.store.research.datasets import DatasetMethods
from core.store.research.events import EventMethods
from core.store.research.ledger import LedgerMethods
from core.store.research.runs import RunMethods
from core.store.research.vectors import VectorMethods


class ResearchStore(DatasetMethods, RunMethods, LedgerMethods, VectorMethods, EventMethods):
    """Keep data sets, runs, features, trials, vectors and events.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, with the rights of one role.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
