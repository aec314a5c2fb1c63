"""A job's source: Parquet of any age and layout, read as one value an entity and period, or row by row."""

from almanac_jobs.source.dataset import Dataset, Portion, open_columns, open_dataset, portions, scan
from almanac_jobs.source.observations import Counts, Observations
from almanac_jobs.source.reader import read, sample

__all__ = [
    "Counts",
    "Dataset",
    "Observations",
    "Portion",
    "open_columns",
    "open_dataset",
    "portions",
    "read",
    "sample",
    "scan",
]
