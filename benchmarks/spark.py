"""Almanac on Spark against what one would write by hand, and against one machine: python -m benchmarks.spark

Every contender goes from Parquet to a finished folder of forecasts on all cores of this machine, in a process of its
own, in `local[cores]`; its time begins when its session is there, and its workers are cold. The hand-written ones are

    applyInPandas, statsforecast    df.groupBy("entity_id").applyInPandas(...) with statsforecast's ARIMA(1,1,1)
    applyInPandas, our kernel       the same, with the kernel that Almanac uses

and get a sample of the ledger, of which the time per entity counts. Beside the time on the clock stands that of all
cores, which other work on the machine changes little. `--entities 1000000 --only spark` runs one size alone, with the
memory of all its processes. The last line is JSON; its ratios are of times on the clock, those of `cpu` of cores'.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from almanac.api import Engine, ForecastJob, ForecastModel
from almanac_jobs import engines, run
from almanac_jobs.forecast import arima
from almanac_jobs.forecast.types import Ragged, SeriesBatch
from almanac_jobs.progress import Progress
from almanac_jobs.resources import usable_cores
from benchmarks.end_to_end import DAYS, ENTITIES, JOB, LEDGER, write_ledger
from benchmarks.forecast import ONE_THREAD

SAMPLES = {"statsforecast": 2_000, "kernel": 5_000}
ROUNDS = 3
HORIZON, Z = 30, {80: 1.2815515655446004, 95: 1.959963984540054}
SCHEMA = "entity_id string, date date, mean double, lo80 double, hi80 double, lo95 double, hi95 double"
GIB = 2**30


def ledger(entities: int) -> Path:
    """The folder of a ledger of so many entities."""
    return LEDGER if entities == ENTITIES else LEDGER.with_name(f"ledger-{entities}")


def job(entities: int, output: Path) -> ForecastJob:
    """The job of `end_to_end.yaml` on a ledger."""
    document = yaml.safe_load(JOB.read_text())
    document["spec"]["source"]["uri"] = str(ledger(entities))
    document["spec"]["output"]["uri"] = str(output)
    document["metadata"]["name"] = f"bench-{entities}"
    return ForecastJob.parse(document)


@contextmanager
def timed_engines() -> Iterator[list[float]]:
    """Notes when the engine of a run is asked for, and when it is ready: seconds of the clock, and cores' then."""
    opened, noted = engines.opened, list[float]()

    @contextmanager
    def timed(*arguments: Any) -> Iterator[engines.Engine]:
        noted.append(time.perf_counter())
        with opened(*arguments) as machine:
            noted.extend((time.perf_counter(), cpu_seconds()))
            yield machine
            noted.append(cpu_seconds())  # while those that have worked are still there to be asked

    engines.opened = timed
    try:
        yield noted
    finally:
        engines.opened = opened


def almanac(engine: Engine, entities: int, output: Path) -> dict[str, Any]:
    """A run of Almanac's: its seconds, those of its session, and the checksum of its tables."""
    progress = Progress()
    with timed_engines() as noted:
        outcome = run.run(
            job(entities, output),
            engine=engine,
            run_id="bench",
            clock=lambda: datetime.now(UTC),
            progress=progress,
            manifest="",
        )
        ended = time.perf_counter()
    asked, ready, before, after = noted
    assert outcome.report.result is not None
    return {
        "seconds": ended - ready,
        "cpu": after - before,
        "start_up_cpu": before,
        "session": ready - asked,
        "stages": {stage.stage: round(stage.seconds, 2) for stage in progress.finished()},
        "checksum": outcome.report.result.checksum,
    }


def forecasts(entity: str, end: np.datetime64, mean: Any, bounds: dict[int, tuple[Any, Any]]) -> pd.DataFrame:
    """What a hand-written function gives for an entity."""
    columns = {"entity_id": entity, "date": (end + np.arange(1, HORIZON + 1)).astype("datetime64[s]"), "mean": mean}
    for level, (low, high) in bounds.items():
        columns |= {f"lo{level}": low, f"hi{level}": high}
    return pd.DataFrame(columns)


def by_statsforecast(group: pd.DataFrame) -> pd.DataFrame:
    """statsforecast's ARIMA on one entity, as its documentation has it for a model by itself."""
    import statsforecast.models

    group = group.sort_values("date")
    model = statsforecast.models.ARIMA(order=(1, 1, 1)).fit(group["amount"].to_numpy())
    told = model.predict(HORIZON, level=list(Z))
    bounds = {level: (told[f"lo-{level}"], told[f"hi-{level}"]) for level in Z}
    return forecasts(group["entity_id"].iloc[0], np.datetime64(group["date"].iloc[-1], "D"), told["mean"], bounds)


def by_kernel(group: pd.DataFrame) -> pd.DataFrame:
    """Our kernel on one entity."""
    group = group.sort_values("date")
    batch = SeriesBatch(Ragged.regular(group["amount"].to_numpy()[None, :]), np.zeros(1, np.int64))
    told = arima.forecast(arima.fit(batch, ForecastModel(order=(1, 1, 1))), HORIZON)
    mean, se = told.mean[0], told.se[0]
    bounds = {level: (mean - z * se, mean + z * se) for level, z in Z.items()}
    return forecasts(group["entity_id"].iloc[0], np.datetime64(group["date"].iloc[-1], "D"), mean, bounds)


def by_hand(function: Callable[[pd.DataFrame], pd.DataFrame], entities: int, output: Path) -> dict[str, Any]:
    """groupBy().applyInPandas() with a function."""
    from pyspark.sql import SparkSession

    begun = time.perf_counter()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(f"local[{usable_cores()}]").config("spark.ui.enabled", "false")
    conf = {
        "spark.driver.memory": "4g",
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(4 * usable_cores()),
        "spark.sql.adaptive.coalescePartitions.enabled": "false",  # a sample is small: its work is to be shared evenly
    }
    for name, value in conf.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    ready, used = time.perf_counter(), cpu_seconds()
    session.read.parquet(str(ledger(entities))).groupBy("entity_id").applyInPandas(function, SCHEMA).write.parquet(
        str(output)
    )
    ended, used = time.perf_counter(), cpu_seconds() - used
    session.stop()
    return {"seconds": ended - ready, "cpu": used, "session": ready - begun}


CONTENDERS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "local": lambda entities, output: almanac(Engine.LOCAL, entities, output),
    "spark": lambda entities, output: almanac(Engine.SPARK, entities, output),
    "statsforecast": lambda entities, output: by_hand(by_statsforecast, entities, output),
    "kernel": lambda entities, output: by_hand(by_kernel, entities, output),
}


@contextmanager
def memory_of(pid: int) -> Iterator[list[int]]:
    """The most memory that a process and all below it have held together (proportional set size), in a list."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            most[0] = max(most[0], sum(map(_held, _family(pid))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def cpu_seconds() -> float:
    """Seconds that cores have worked for this process and all below it, those that have ended included."""
    return sum(map(_worked, _family(os.getpid()))) / os.sysconf("SC_CLK_TCK")


def _worked(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def measured(contender: str, entities: int) -> dict[str, Any]:
    """A contender in a process of its own, its output removed before and after."""
    write_ledger(ledger(entities), entities)
    for file in ledger(entities).glob("*.parquet"):
        file.read_bytes()  # it is not the disk that is measured
    output = Path("out/bench-spark") / contender
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.spark", "--child", contender, "--entities", str(entities)]
    with (
        subprocess.Popen(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True) as process,
        memory_of(process.pid) as most,
    ):
        told, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    shutil.rmtree(output, ignore_errors=True)
    figures: dict[str, Any] = json.loads(told.splitlines()[-1]) | {"gib": round(most[0] / GIB, 1)}
    stages = "".join(f", {stage} {seconds} s" for stage, seconds in figures.get("stages", {}).items())
    print(
        f"{contender:14} {entities:9,} entities {figures['seconds']:7.1f} s, {entities / figures['seconds']:8,.0f} a "
        f"second, {figures['cpu']:.1f} s of cores, {figures['gib']} GiB, session {figures['session']:.1f} s{stages}",
        flush=True,
    )
    return figures


def compare(rounds: int) -> dict[str, Any]:
    """All contenders, and Almanac on Spark with twice the entities, taking turns in each round."""
    sizes = {"local": ENTITIES, "spark": ENTITIES, "spark twice": 2 * ENTITIES} | SAMPLES
    seconds: dict[str, list[float]] = {name: [] for name in sizes}
    cpu: dict[str, list[float]] = {name: [] for name in sizes}
    checksums = set()
    for turn in range(rounds):
        for name, entities in sizes.items():
            if turn and name in SAMPLES:
                continue  # they are far off, and slow
            figures = measured(name.split()[0], entities)
            seconds[name].append(figures["seconds"])
            cpu[name].append(figures["cpu"])
            if entities == ENTITIES:
                checksums.add(figures["checksum"])
    assert len(checksums) == 1, "the engines disagree"
    return ratios(sizes, seconds) | {"cpu": ratios(sizes, cpu)}


def ratios(sizes: dict[str, int], times: dict[str, list[float]]) -> dict[str, Any]:
    """How contenders compare, by the median of their times per entity."""
    each = {name: statistics.median(times[name]) / entities for name, entities in sizes.items()}
    return {
        "ratio_applyinpandas_statsforecast": round(each["statsforecast"] / each["spark"], 1),
        "ratio_applyinpandas_kernel": round(each["kernel"] / each["spark"], 1),
        "over_local": round(each["spark"] / each["local"], 2),
        "doubling": round(2 * each["spark twice"] / each["spark"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--entities", type=int, default=ENTITIES)
    parser.add_argument("--only", choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        output = Path("out/bench-spark") / options.child
        print(json.dumps(CONTENDERS[options.child](options.entities, output)))
        return
    print(f"{usable_cores()} cores, {DAYS} days an entity", flush=True)
    figures = measured(options.only, options.entities) if options.only else compare(options.rounds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
