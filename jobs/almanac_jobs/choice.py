"""Which engine a run computes on: the one that its job names, else what footers and memory suggest. Decided here alone.

One process is the fastest engine as long as it holds the data: it starts at once, and shuffles nothing. So `auto` is
this process, unless the rows of the source may take more memory than a run may have here. What is beyond that is handed
over where an operator starts the cluster, and elsewhere goes to a cluster engine that is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from almanac.api import Engine, JobError, Reason, checks
from almanac_jobs.resources import GIB

ENGINE = "ALMANAC_ENGINE"
"""Environment variable: the engine of a job that leaves it open (`auto`), where it did not fit into one process."""
LOCAL_MEMORY = "ALMANAC_LOCAL_MEMORY"
"""Environment variable: memory that `auto` lets a run take in one process: 8Gi, or a share of what there is, 80%."""
SHARE = 0.8
"""That share where nothing is said: the libraries of a run, and what it writes, are the rest."""
ADDRESSES = {Engine.DASK: ("DASK_SCHEDULER_ADDRESS",), Engine.SPARK: ("SPARK_MASTER", "SPARK_CONF_DIR")}
"""Environment variables that say where a cluster is."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What footers say of the rows that a run reads, and the `memory` that they take in one process at most.

    `bytes` are those of the columns that are read, uncompressed.
    """

    rows: int
    columns: int
    bytes: int
    memory: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows of {self.columns} columns ({_size(self.bytes)})"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run has here. `memory` is what this process may hold, `most` what auto lets a run take of it.

    `hand_over` says that somebody else starts a cluster where that does not do. `lacks` says what an engine needs that
    is not installed, or nothing.
    """

    memory: int
    most: int
    hand_over: bool
    environment: Mapping[str, str]
    lacks: Callable[[Engine], str]


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine of a run, and why. `warning` is there if another one would have been better, and is not."""

    engine: Engine
    why: str
    warning: str = ""


def named(asked: Engine, environment: Mapping[str, str]) -> Engine:
    """The engine that a job names, or the environment for it; AUTO where neither does.

    Raises:
        JobError: InvalidSpec if `environment` names none.
    """
    wanted = environment.get(ENGINE) if asked is Engine.AUTO else None
    if not wanted:
        return asked
    if wanted not in (Engine.LOCAL, Engine.SPARK, Engine.DASK):
        raise JobError(Reason.INVALID_SPEC, f"{ENGINE}: `{wanted}` is no engine: write local, spark or dask")
    return Engine(wanted)


def machine(memory: int, environment: Mapping[str, str], *, hand_over: bool) -> Machine:
    """This process, which may hold so many bytes.

    Raises:
        JobError: InvalidSpec for a share or an amount of memory that is none.
    """
    setting = environment.get(LOCAL_MEMORY) or f"{SHARE:.0%}"
    return Machine(memory, _most(memory, setting), hand_over, environment, lacks)


def _most(memory: int, setting: str) -> int:
    share = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", setting.strip())
    if share:
        return int(memory * float(share[1]) / 100)
    try:
        return checks.amount(checks.quantity(setting.strip()))
    except ValueError:
        raise JobError(
            Reason.INVALID_SPEC, f"{LOCAL_MEMORY}: `{setting}` is no memory: write an amount (8Gi) or a share (80%)"
        ) from None


def decide(asked: Engine, footprint: Footprint, clusters: Sequence[Engine], here: Machine) -> Choice:
    """The engine of a run: `asked`, or what it becomes where that is AUTO. `clusters` are those of its kind of job, the
    one that suits it best first.

    Raises:
        JobError: TooBigForLocal, where somebody else starts the cluster.
    """
    if asked is not Engine.AUTO:
        return Choice(asked, f"named by the job, or for it; {footprint}")
    need, most = _size(footprint.memory), _size(here.most)
    if footprint.memory <= here.most:
        return Choice(Engine.LOCAL, f"{footprint} take {need} of memory at most, and one process may take {most}")
    figures = f"{footprint} may take {need} of memory, and one process may take {most} of {_size(here.memory)}"
    if not clusters:
        return Choice(Engine.LOCAL, f"{figures}: this kind of job has no other engine")
    if here.hand_over:
        raise JobError(Reason.TOO_BIG_FOR_LOCAL, f"spec.source.uri: {figures}")
    reached = [one for one in clusters if any(here.environment.get(name) for name in ADDRESSES[one])]
    wanted = [*reached, *(one for one in clusters if one not in reached)]
    lacking = {one: here.lacks(one) for one in wanted}
    found = next((one for one in wanted if not lacking[one]), None)
    if found is not None:
        return Choice(found, figures)
    missing = "; ".join(f"{one} needs {what}" for one, what in lacking.items())
    why = f"{figures}: no other engine is installed"
    return Choice(Engine.LOCAL, why, f"spec.engine: auto is local, and the run may stop for want of memory: {missing}")


def lacks(engine: Engine) -> str:
    """What an engine needs that is not installed here, and how it is; empty if it has all."""
    package = {Engine.SPARK: "pyspark", Engine.DASK: "distributed"}.get(engine)
    if package and importlib.util.find_spec(package) is None:
        return f"{package} (pip install 'almanac[{engine}]')"
    if engine is Engine.SPARK and not has_java():
        return "Java 17 or newer, on the PATH or at JAVA_HOME"
    return ""


def has_java() -> bool:
    """Whether there is a Java, which Spark needs."""
    home = os.environ.get("JAVA_HOME")
    return bool(shutil.which("java") or (home and shutil.which("java", path=f"{home}/bin")))


def _size(number: int) -> str:
    return f"{number / GIB:,.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:,.1f} MiB"
