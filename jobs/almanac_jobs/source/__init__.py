"""A job's source: Parquet of any age and layout, read as one value an entity and period."""

from almanac_jobs.source.dataset import Dataset, open_dataset
from almanac_jobs.source.observations import Counts, Observations
from almanac_jobs.source.reader import read, sample

__all__ = ["Counts", "Dataset", "Observations", "open_dataset", "read", "sample"]
