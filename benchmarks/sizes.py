"""The same forecast on each engine, at growing sizes, and what a small one costs: python -m benchmarks.sizes

The job of `end_to_end.yaml` on ledgers of 1,000, 10,000 and 100,000 entities of 120 days, from Parquet to a finished
folder of forecasts, in a process of its own on all cores of this machine: one process, Dask's worker processes, Spark
in `local[cores]`. Time counts from the start of the process to its end; start-up is the part of it before the first row
is read, with what the engine takes to start. Seconds of cores, of start-up and of the rest, stand beside those of the
clock: other work on the machine changes them less. Memory is that of all processes (proportional set size).

Then 50 entities of 365 days by `almanac run`, which is left to choose, against a script that calls the same functions:
what is fixed, measured by one entity of as many days, is taken off each, round by round, and the median is compared.

The last line is JSON. `crossing` says from how many entities on an engine is faster than this process on this machine;
null: at no size that was measured. `rows_a_core_second` and `start_up` are what docs/sizing.md is made of.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from almanac.api import Engine, ForecastJob
from almanac_jobs.progress import Progress
from almanac_jobs.resources import usable_cores
from benchmarks.end_to_end import DAYS, write_ledger
from benchmarks.forecast import ONE_THREAD
from benchmarks.spark import GIB, almanac, ledger, memory_of

SIZES = (1_000, 10_000, 100_000)
ENGINES = ("local", "dask", "spark")
ROUNDS = 3
FIGURES = ("seconds", "start_up", "start_up_cpu", "cpu", "gib")
SMALL, TINY = (50, 365), (1, 365)
SMALL_ROUNDS = 21
PROGRAM = "from almanac.cli import main; main()"


def forecast(engine: Engine, entities: int, output: Path, begun: float) -> dict[str, Any]:
    """A run on an engine, in this process, which has begun at a time of the clock."""
    imported = time.time()
    told = almanac(engine, entities, output)
    return told | {"start_up": imported - begun + told["session"]}


def measured(engine: str, entities: int) -> dict[str, Any]:
    """A forecast in a process of its own."""
    output = Path("out/bench-sizes") / engine
    shutil.rmtree(output, ignore_errors=True)
    for file in ledger(entities).glob("*.parquet"):
        file.read_bytes()  # it is not the disk that is measured
    begun = time.time()
    command = [sys.executable, "-m", "benchmarks.sizes", "--child", engine, str(entities), repr(begun)]
    with (
        subprocess.Popen(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True) as process,
        memory_of(process.pid) as most,
    ):
        told, _ = process.communicate()
    seconds = time.time() - begun
    if process.returncode:
        sys.exit(process.returncode)
    shutil.rmtree(output, ignore_errors=True)
    figures: dict[str, Any] = json.loads(told.splitlines()[-1])
    figures |= {"seconds": seconds, "gib": most[0] / GIB}
    print(
        f"{engine:6} {entities:9,} entities {seconds:6.1f} s, of these {figures['start_up']:.1f} s until it reads, "
        f"{figures['start_up_cpu']:.1f} + {figures['cpu']:.1f} s of cores, {figures['gib']:.2f} GiB; "
        f"{figures['stages']}",
        flush=True,
    )
    return figures


def sizes(rounds: int) -> dict[str, Any]:
    """Every engine at every size, the median of some rounds."""
    for entities in SIZES:
        write_ledger(ledger(entities), entities)
    found: dict[str, dict[int, list[dict[str, Any]]]] = {name: {size: [] for size in SIZES} for name in ENGINES}
    for _ in range(rounds):
        for size in SIZES:
            for name in ENGINES:
                found[name][size].append(measured(name, size))
            assert len({one["checksum"] for name in ENGINES for one in found[name][size]}) == 1, "engines disagree"
    told: dict[str, Any] = {}
    for name in ENGINES:
        middle = {
            size: {key: statistics.median(one[key] for one in some) for key in FIGURES}
            for size, some in found[name].items()
        }
        told[name] = {
            figure: {str(size): round(middle[size][figure], 2) for size in SIZES}
            for figure in ("seconds", "cpu", "gib")
        }
        for figure in ("start_up", "start_up_cpu"):
            told[name][figure] = round(statistics.median(middle[size][figure] for size in SIZES), 2)
        least, most = middle[SIZES[0]], middle[SIZES[-1]]
        rows = (SIZES[-1] - SIZES[0]) * DAYS
        told[name]["rows_a_core_second"] = round(rows / (most["cpu"] - least["cpu"]))
        told[name]["bytes_a_row"] = round((most["gib"] - least["gib"]) * GIB / rows)
    seconds = {name: told[name]["seconds"] for name in ENGINES}
    told["crossing"] = {
        name: next((size for size in SIZES if seconds[name][str(size)] < seconds["local"][str(size)]), None)
        for name in ENGINES[1:]
    }
    return told


def by_hand(document: dict[str, Any]) -> None:
    """A script that calls what `almanac run` calls: read, fit, evaluate, write, draw the page, publish."""
    from almanac_jobs import provenance, reporting, source
    from almanac_jobs.artefacts import RunWriter
    from almanac_jobs.parts import Recipe, Summary
    from almanac_jobs.report.page import render
    from almanac_jobs.reporting import Facts

    job, started = ForecastJob.parse(document), datetime.now(UTC)
    writer = RunWriter(job.spec.output, None, f"r{os.getpid()}")
    read = source.read(job.spec)
    recipe = Recipe(job.spec, read.calendar)
    summaries = []
    for bucket in range(read.buckets):
        part = recipe.work(read, *read.of_bucket(bucket), Progress())
        writer.write(bucket, part.tables)
        summaries.append(part.summary)
    facts = Facts(
        job=job,
        manifest="",
        run=writer.run,
        engine=Engine.LOCAL,
        why="",
        started=started,
        finished=datetime.now(UTC),
        durations={},
        versions=provenance.versions(),
        git_revision=provenance.git_revision(),
        counts=read.counts,
        entities=len(read),
        entity_type=str(read.entities.type),
        buckets=read.buckets,
        frequency=str(read.calendar.frequency),
        first=read.calendar.label(int(read.period.min())),
        last=read.calendar.label(read.last_period),
        summary=Summary.sum(summaries),
    )
    writer.write_page(render(reporting.page_data(facts)))
    writer.publish(reporting.record(facts))


def small(rounds: int) -> dict[str, Any]:
    """What `almanac run` costs over a script, where there is little to do."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = {shape: _small_job(Path(folder), *shape) for shape in (SMALL, TINY)}
        command = {
            "almanac": lambda file: [sys.executable, "-c", PROGRAM, "run", "--quiet", "-f", str(file)],
            "script": lambda file: [sys.executable, "-m", "benchmarks.sizes", "--script", str(file)],
        }
        taken: dict[tuple[str, tuple[int, int]], list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for shape, file in jobs.items():
                for name, made in command.items():
                    taken.setdefault((name, shape), []).append(_taken(made(file)))
    wall = {key: min(one[0] for one in some) for key, some in taken.items()}
    work = {
        name: [
            statistics.median(
                much[at] - little[at] for much, little in zip(taken[name, SMALL], taken[name, TINY], strict=True)
            )
            for at in (0, 1)
        ]
        for name in command
    }
    return {
        "almanac_run_s": round(wall["almanac", SMALL], 2),
        "script_s": round(wall["script", SMALL], 2),
        "start_up_s": round(wall["almanac", TINY], 2),
        "script_start_up_s": round(wall["script", TINY], 2),
        "work_s": {name: round(both[0], 3) for name, both in work.items()},
        "work_core_s": {name: round(both[1], 3) for name, both in work.items()},
        "over_script": round(work["almanac"][0] / work["script"][0] - 1, 3),
    }


def _small_job(folder: Path, entities: int, days: int) -> Path:
    place = folder / f"{entities}x{days}"
    place.mkdir()
    day = np.datetime64("2025-01-06") + np.arange(days)
    rng = np.random.default_rng(1)
    table = {
        "entity_id": pa.array(np.repeat([f"account-{one:02}" for one in range(entities)], days)),
        "date": pa.array(np.tile(day, entities)),
        "amount": pa.array(rng.normal(100, 10, entities * days)),
    }
    pq.write_table(pa.table(table), place / "ledger.parquet")
    columns = {"entity": "entity_id", "time": "date", "value": "amount"}
    spec = {"source": {"uri": str(place), "columns": columns}, "frequency": "D", "output": {"uri": f"{place}-out"}}
    document = {
        "apiVersion": "almanac.dev/v1alpha1",
        "kind": "ForecastJob",
        "metadata": {"name": "small"},
        "spec": spec,
    }
    file = folder / f"{entities}x{days}.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _taken(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and seconds of cores, of a process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=["sizes", "small"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--script", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.script:
        by_hand(yaml.safe_load(Path(options.script).read_text()))
        return
    if options.child:
        engine, entities, begun = options.child
        output = Path("out/bench-sizes") / engine
        print(json.dumps(forecast(Engine(engine), int(entities), output, float(begun))))
        return
    print(f"{usable_cores()} cores, {DAYS} days an entity", flush=True)
    told: dict[str, Any] = {"cores": usable_cores()}
    if options.only != "small":
        told |= sizes(options.rounds)
    if options.only != "sizes":
        told["small"] = small(SMALL_ROUNDS)
        print(f"50 entities of 365 days: {told['small']}", flush=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
