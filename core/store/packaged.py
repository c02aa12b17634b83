"""Data sets by name: those of the store, and those that ship with installed packages, which are imported on first use."""

from __future__ import annotations

import difflib

from core.errors import MissingDataError
from core.market import dataset_info, list_datasets, load_dataset
from core.store.opening import Store
from core.store.records import Dataset


def ensure_dataset(store: Store, name: str) -> Dataset:
    """Return a data set of the store; one that ships with an installed package is loaded on its first use.

    Raises
    ------
    MissingDataError
        If neither the store nor an installed package has it.
    """
    packaged = {info.name for info in list_datasets()}
    stored = {dataset.name for dataset in store.service.list_datasets()}
    if name in packaged and name not in stored:
        info = dataset_info(name)
        return store.service.import_dataset(
            load_dataset(name),
            name=name,
            source=info.source,
            frequency=info.frequency,
            caveats=info.caveats,
            tradable=info.tradable,
        )
    if name not in stored:
        known = sorted(packaged | stored)
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise MissingDataError(
            f"unknown data set {name!r}.{meant} There are {', '.join(known)}; "
            "bring your own with `aqf data import FILE.csv --name NAME`."
        )
    return store.service.find_dataset(name)
