"""What cluster engines do, without a cluster: a source that is divided, shuffled and put together again is the same."""

from __future__ import annotations

import itertools
import pickle
import tempfile
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almanac.api import ForecastSpec, JobError
from almanac_jobs.buckets import bucket_count, bucket_of, place_of, place_of_bucket
from almanac_jobs.engines import shuffled
from almanac_jobs.engines.shuffle import (
    Census,
    Division,
    Gather,
    Grouping,
    MapBuckets,
    MapRows,
    Record,
    take_census,
)
from almanac_jobs.source import Counts, Observations, aggregation, open_dataset, portions, read
from almanac_jobs.source.partial import Tally
from almanac_jobs.source.reader import plan


def spec(folder: str | Path, how: str = "sum", frequency: str = "D") -> ForecastSpec:
    columns = {"entity": "id", "time": "day", "value": "amount"}
    source = {"uri": str(folder), "columns": columns, "aggregate": how}
    return ForecastSpec.model_validate({"source": source, "frequency": frequency, "output": {"uri": "/nowhere"}})


def write(folder: Path, seed: int, rows: int, kind: pa.DataType) -> None:
    """Two files of rows in no order; some have no value, and some entities nothing but such rows."""
    rng = np.random.default_rng(seed)
    for name in ("a", "b"):
        entity, value = rng.integers(0, 40, rows), rng.normal(0, 10.0 ** rng.integers(-3, 16, rows))
        nothing = (rng.random(rows) < 0.05) | (entity == 7)
        table = {
            "id": pa.array([f"entity {one}" for one in entity]),
            "day": pa.array((np.datetime64("2026-01-01") + rng.integers(0, 60, rows)).astype("datetime64[D]")),
            "amount": pa.array(value, mask=nothing)
            if pa.types.is_floating(kind)
            else _whole(value, nothing).cast(kind),
        }
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=50)


def _whole(value: np.ndarray[Any, Any], nothing: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(np.round(value).astype(np.int64), mask=nothing)


def shuffle(job: ForecastSpec, division: Division, rows: int) -> dict[int, list[Record]]:
    """Partitions of the shuffle by key, as executors would find them: pickled, in no order."""
    partitions: dict[int, list[Record]] = {}
    work = pickle.loads(pickle.dumps(MapRows(job, division)))  # noqa: S301 - of our own making
    for portion in reversed(portions(open_dataset(job.source, None), None, rows)):
        for record in work(0, pickle.loads(pickle.dumps([portion]))):  # noqa: S301
            partitions.setdefault(record[0], []).append(pickle.loads(pickle.dumps(record)))  # noqa: S301
    return partitions


def census(partitions: dict[int, list[Record]], division: Division) -> list[Census]:
    return [one for key in division.census for one in take_census(key, partitions.get(key, []))]


def grouped(partitions: dict[int, list[Record]], grouping: Grouping) -> Iterator[tuple[int, list[Record]]]:
    """Groups of neighbouring partitions, as Spark's coalesce makes them."""
    size = grouping.division.partitions // grouping.groups
    for group in range(grouping.groups):
        keys = range(group * size, (group + 1) * size)
        yield group, list(itertools.chain.from_iterable(partitions.get(key, []) for key in keys))


def only(observations: Observations, bucket: int) -> dict[str, Any]:
    """The observations of a bucket, as things that can be compared."""
    first, last = observations.of_bucket(bucket)
    start, end = observations.offsets[first], observations.offsets[last]
    return {
        "entities": observations.entities.slice(first, last - first).to_pylist(),
        "lengths": np.diff(observations.offsets[first : last + 1]).tolist(),
        "period": observations.period[start:end].tolist(),
        "value": observations.value[start:end].tobytes(),
    }


@settings(max_examples=40, deadline=None)
@given(
    how=st.sampled_from(["sum", "mean", "count", "min", "max", "last"]),
    kind=st.sampled_from([pa.float64(), pa.int64(), pa.decimal128(30, 2)]),
    places=st.sampled_from([1, 4, 16]),
    bucket_entities=st.sampled_from([1, 3, 20, 100]),
    rows=st.integers(1, 400),
    portion=st.sampled_from([60, 1000]),
    seed=st.integers(0, 1000),
)
def test_a_divided_source_is_the_same_to_the_bit(
    how: str, kind: pa.DataType, places: int, bucket_entities: int, rows: int, portion: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("almanac_jobs.buckets.BUCKET_ENTITIES", bucket_entities)
        write(Path(folder), seed, rows, kind)
        job, division = spec(folder, how), Division(places)
        try:
            whole = read(job)
        except JobError:  # too few rows: each without a value
            return
        partitions = shuffle(job, division, portion)
        counted = census(partitions, division)
        tally = reduce(add, (one for some in counted for one in some.tallies))
        assert sum(one.entities for one in counted) == len(whole)
        assert (tally.first, tally.last) == (whole.period.min(), whole.last_period)
        grouping = Grouping(division, bucket_count(len(whole)))
        gather = Gather(plan(job, open_dataset(job.source, None).types), "day", grouping)
        task = MapBuckets(
            gather, whole.calendar, whole.last_period, lambda seen, bucket, _: (bucket, only(seen, bucket))
        )
        done = [one for group, records in grouped(partitions, grouping) for one in task(group, records)]
        assert sorted(result for one in done for result in one.results) == [
            (bucket, only(whole, bucket)) for bucket in range(whole.buckets)
        ]
        merged = tally.counted - sum(one.observations for one in done)
        assert (tally.counts.rows, tally.counts.null_values, merged) == (
            whole.counts.rows,
            whole.counts.null_values,
            whole.counts.merged,
        )


def test_a_skewed_entity_crosses_as_one_value_a_period(tmp_path: Path) -> None:
    rows = 200_000
    days = (np.datetime64("2026-01-01") + np.arange(rows) % 30).astype("datetime64[D]")
    names = pa.array(["one"] * (rows - 10) + [f"other {number}" for number in range(10)])
    pq.write_table(pa.table({"id": names, "day": days, "amount": np.ones(rows)}), tmp_path / "t.parquet")
    partitions = shuffle(spec(tmp_path), Division(4), rows)
    crossed = sum(len(value) for some in partitions.values() for _, value in some if isinstance(value, bytes))
    assert crossed < 10_000


@pytest.mark.parametrize("places", [1, 2, 64, 8192])
def test_the_entities_of_a_bucket_have_places_side_by_side(places: int) -> None:
    entities = pa.array([str(number) for number in range(20_000)])
    place = place_of(entities, places)
    for buckets in (1, 2, 16, 64):
        if buckets <= places:
            bucket = place * buckets // places
            turned = np.array([place_of_bucket(one, buckets) for one in range(buckets)])
            assert (turned[bucket] == bucket_of(entities, buckets)).all()


@pytest.mark.parametrize(("places", "buckets"), [(1, 1), (4, 1), (4, 4), (4, 64), (1024, 16)])
def test_every_bucket_is_in_one_group(places: int, buckets: int) -> None:
    grouping = Grouping(Division(places), buckets)
    assert sorted(one for group in range(grouping.groups) for one in grouping.buckets_of(group)) == list(range(buckets))
    assert all(bucket in grouping.buckets_of(grouping.of_bucket(bucket)) for bucket in range(buckets))
    assert {grouping.division.census_of(place) for place in range(places)} == set(grouping.division.census)


def test_the_number_of_portions_and_places_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, 1, 2000, pa.float64())  # row groups of 50
    dataset = open_dataset(spec(tmp_path).source, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffled, "LEAST_ROWS", 50)
        patch.setattr(shuffled, "MOST_ROWS", 50)
        assert len(shuffled.shares(dataset, spec(tmp_path), 2)) == 80
        assert len(shuffled.shares(dataset, spec(tmp_path), 2, 8)) == 8
    assert shuffled.division(10, 3) == Division(8)
    assert shuffled.division(10**9, 3) == Division(512)
    assert shuffled.division(10**9, 3, 128) == Division(128)


def test_memory_follows_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that takes in many partial aggregates combines them as they come."""
    monkeypatch.setattr(aggregation, "CHUNK_ROWS", 20)
    write(tmp_path, 1, 300, pa.float64())
    job, division = spec(tmp_path), Division(1)
    whole = read(job)
    gather = Gather(plan(job, open_dataset(job.source, None).types), "day", Grouping(division, 1))
    seen = gather(0, shuffle(job, division, 60)[0]).finish(whole.last_period)
    assert only(seen, 0) == only(whole, 0)


def test_tallies_add_up_and_empty_ones_change_nothing() -> None:
    some = Tally(Counts(3, null_values=1), 2, -5, 7, frozenset({1}))
    none = Tally(Counts(2, null_times=2), 0, None, None, frozenset())
    assert some + none == Tally(Counts(5, null_times=2, null_values=1), 2, -5, 7, frozenset({1}))
    assert none + none == Tally(Counts(4, null_times=4), 0, None, None, frozenset())
