"""A whole run, Parquet in and run directory out: python -m benchmarks.end_to_end

100,000 entities times 120 days, 12 million rows in files of ten days each, as a ledger grows: no entity's rows lie
together. `almanac run` reads, sums by day, fits (1,1,1) to each entity and writes forecasts and parameters, in a
process of its own with all cores of this machine. Wall time counts from the start of that process to its end; the
files have been read once before, so that it is not the disk that is measured.

The last line is JSON, for `benchmarks.forecast`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from shutil import rmtree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.series import journal

ENTITIES = 100_000
DAYS = 120
DAYS_A_FILE = 10
ENTITIES_AT_ONCE = 5_000
FIRST_DAY = np.datetime64("2026-01-05")  # a Monday
LEDGER = Path("data/bench/ledger")
JOB = Path(__file__).with_name("end_to_end.yaml")
SEED = 20261121


def write_ledger(folder: Path, entities: int = ENTITIES) -> None:
    """The ledger, once: `entity_id` string, `date`, `amount` double; a file holds ten days in no order."""
    if folder.exists():
        return
    print(f"Writing {folder} ...", flush=True)
    rng = np.random.default_rng(SEED)
    blocks = [journal(ENTITIES_AT_ONCE, DAYS, rng) for _ in range(0, entities, ENTITIES_AT_ONCE)]
    totals = np.concatenate(blocks)[:entities]
    names = pa.array([f"account-{number:06}" for number in range(entities)])
    unfinished = folder.with_suffix(".unfinished")
    rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for first in range(0, DAYS, DAYS_A_FILE):
        entity, day = np.divmod(rng.permutation(entities * DAYS_A_FILE), DAYS_A_FILE)
        columns = {
            "entity_id": names.take(pa.array(entity)),
            "date": pa.array(FIRST_DAY + (first + day)),
            "amount": pa.array(totals[entity, first + day]),
        }
        pq.write_table(pa.table(columns), unfinished / f"from-day-{first:03}.parquet")
    unfinished.rename(folder)


def run(job: Path) -> tuple[float, float]:
    """`almanac run` on the job: wall time in seconds, and the highest resident set in MiB."""
    program = Path(sys.executable).with_name("almanac")
    begun = time.perf_counter()
    process = subprocess.Popen([program, "run", "-f", job], stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    kib = usage.ru_maxrss / 1024 if sys.platform == "darwin" else usage.ru_maxrss
    return seconds, kib / 1024


def main() -> None:
    write_ledger(LEDGER)
    rows = 0
    for file in sorted(LEDGER.glob("*.parquet")):
        file.read_bytes()
        rows += pq.read_metadata(file).num_rows
    print(f"{ENTITIES:,} entities over {DAYS} days, {rows:,} rows:", flush=True)
    seconds, mib = run(JOB)
    print(f"{seconds:.1f} s, {ENTITIES / seconds:,.0f} entities/s, peak memory {mib:,.0f} MiB")
    print(json.dumps({"entities_per_s": round(ENTITIES / seconds), "peak_rss_mib": round(mib)}))


if __name__ == "__main__":
    main()
