"""Every figure about forecasting: python -m benchmarks.forecast

Three parts, each in processes of its own: the engines against each other on one core (`compare`), the time from a new
process to its first fitted series, and a whole run from Parquet to Parquet (`end_to_end`). README.md says how to read
the figures. The last line is all of them as one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")}

FIRST_SERIES = """
import numpy as np
from almanac.api import ForecastModel
from almanac_jobs.forecast import arima
from almanac_jobs.forecast.types import Ragged, SeriesBatch
series = np.random.default_rng(0).normal(size=(1, 120)).cumsum(axis=1)
arima.fit(SeriesBatch(Ragged.regular(series), np.zeros(1, np.int64)), ForecastModel(order=(1, 1, 1)))
"""


def part(module: str, *arguments: str, **environment: str) -> dict[str, object]:
    """The figures of one part, which prints them as JSON on its last line; what it prints before is passed on."""
    command = [sys.executable, "-m", module, *arguments]
    last = ""
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.returncode:
        sys.exit(process.returncode)
    figures: dict[str, object] = json.loads(last)
    return figures


def cold_start(repeats: int = 5) -> float:
    """Median wall time, in seconds, of a new Python process that imports the engine and fits its first series."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_SERIES], check=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def main() -> None:
    figures = part("benchmarks.compare", *sys.argv[1:], **ONE_THREAD)
    figures["cold_start_s"] = round(cold_start(), 2)
    print(f"A new process has fitted its first series after {figures['cold_start_s']} s.")
    figures |= part("benchmarks.end_to_end")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
