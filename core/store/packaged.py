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
    stored = _stored_names(store, name)
    if name not in stored:
        info = dataset_info(name)
        return store.service.import_dataset(
            load_dataset(name),
            name=name,
            source=info.source,
            frequency=info.frequency,
            caveats=info.caveats,
            tradable=info.tradable,
        )
    return store.service.find_dataset(name)


def find_symbols(store: Store, name: str) -> tuple[str, ...]:
    """Return the symbols of a data set, without loading a packaged one into the store.

    Raises
    ------
    MissingDataError
        If neither the store nor an installed package has it.
    """
    if name in _stored_names(store, name):
        return tuple(store.service.find_dataset(name).symbols)
    return load_dataset(name).symbols


def _stored_names(store: Store, name: str) -> set[str]:
    """Return the data sets of the store, if `name` is one of them or ships with a package."""
    packaged = {info.name for info in list_datasets()}
    stored = {dataset.name for dataset in store.service.list_datasets()}
    if name not in packaged | stored:
        known = sorted(packaged | stored)
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise MissingDataError(
            f"unknown data set {name!r}.{meant} There are {', '.join(known)}; "
            "bring your own with `aqf data import FILE.csv --name NAME`."
        )
    return stored
