"""Bars: the Panel, the data sets that ship with installed packages, CSV and Parquet files."""

from core.market.datasets import DatasetInfo, dataset_info, list_datasets, load_dataset
from core.market.files import check_panel, read_bars
from core.market.panel import BAR_FIELDS, FloatArray, Panel

__all__ = [
    "BAR_FIELDS",
    "DatasetInfo",
    "FloatArray",
    "Panel",
    "check_panel",
    "dataset_info",
    "list_datasets",
    "load_dataset",
    "read_bars",
]
