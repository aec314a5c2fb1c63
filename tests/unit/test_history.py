from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from almanac_jobs.forecast.types import Ragged, SeriesBatch
from almanac_jobs.history import history_table


def test_the_last_periods_of_each_entity_are_kept():
    batch = SeriesBatch(Ragged.of([[1, 2, 3], [], [4], [5, np.nan, 6]]), np.zeros(4, np.int64))
    day = date(2026, 11, 21)
    table = history_table(pa.array(["a", "b", "c", "d"]), batch, pa.array([day, None, day, day]), 2)
    assert table.to_pylist() == [
        {"entity": "a", "end": day, "values": [2, 3]},
        {"entity": "b", "end": None, "values": []},
        {"entity": "c", "end": day, "values": [4]},
        {"entity": "d", "end": day, "values": [6]},  # a history does not begin with a missing value
    ]


def test_missing_values_inside_are_null():
    batch = SeriesBatch(Ragged.of([[5, np.nan, 6]]), np.zeros(1, np.int64))
    assert history_table(pa.array([7]), batch, pa.array([None], pa.date32()), 9)["values"].to_pylist() == [[5, None, 6]]
