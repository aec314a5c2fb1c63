"""The pods that compute for a driver: how many there are and must be, as its engine has it, and in the status. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from almanac import names
from almanac.api import Dask, Engine, Workers
from almanac.observed import Worker, WorkerCounts


@dataclass(frozen=True, slots=True)
class Crew:
    """The pods that compute for a driver. What is None is not known."""

    pods: tuple[Worker, ...]
    wanted: int | None = None
    running: int | None = None
    failed: int | None = None
    lack: str = ""
    """What is missing, in words; empty: nothing."""
    short: bool = False
    """Too few run to go on with."""

    @property
    def waiting(self) -> tuple[Worker, ...]:
        """Those that have yet to run, in the order in which they are needed."""
        return tuple(one for one in self.pods if one.waiting)


def on_spark(seen: tuple[Worker, ...], counts: WorkerCounts | None) -> Crew | None:
    """Executors: the driver counts them, and any one will do. None where nothing is known of them."""
    if counts is None and not seen:
        return None
    none = not any(one.running for one in seen) and not (counts and counts.running)
    meant = any(one.waiting for one in seen) or bool(counts and counts.wanted)
    short = none and meant
    crew = Crew(seen, lack="none of its executors is running" if short else "", short=short)
    return crew if counts is None else replace(crew, wanted=counts.wanted, running=counts.running, failed=counts.failed)


def on_dask(seen: tuple[Worker, ...], counts: WorkerCounts | None, spec: Dask, before: Workers | None) -> Crew:
    """A scheduler and workers: all of the fewest must run. Between that and the most, the driver says how many."""
    schedulers = tuple(one for one in seen if one.role == names.SCHEDULER)
    workers = tuple(one for one in seen if one.role == names.WORKER)
    asked = counts.wanted if counts else before.wanted if before else None
    wanted = max(spec.fewest, min(spec.most, asked or 0))
    running = sum(one.running for one in workers)
    failed = max((before and before.failed) or 0, sum(one.restarts for one in workers))
    found = Crew((*schedulers, *workers), wanted, running, failed)
    if not any(one.running for one in schedulers):
        return replace(found, lack="the scheduler of its workers is not running", short=True)
    if running < wanted:
        lack = f"only {running} of its {wanted} workers are running" if running else "none of its workers is running"
        return replace(found, lack=lack, short=running < spec.fewest)
    return found


def status(before: Workers | None, crew: Crew | None, now: datetime) -> Workers | None:
    """The workers of a run that goes on. What is not known now stays as it was; None: nothing was ever known."""
    if crew is None:
        return before
    failed = [one for one in crew.pods if one.exit is not None and one.exit.code != 0]
    last = max(failed, key=lambda one: (one.exit and one.exit.time) or one.created, default=None)
    since = (before and before.short_since) or now.replace(microsecond=0)
    changes: dict[str, object] = {"short_since": since if crew.short else None}
    if crew.wanted is not None:
        changes |= {"wanted": crew.wanted, "running": crew.running, "failed": crew.failed}
        changes["ready"] = f"{crew.running}/{crew.wanted}"
    if last is not None and last.exit is not None:
        changes["message"] = f"{last.name}: {last.exit.reason}: {last.exit.message}"
    return (before or Workers()).model_copy(update=changes)


def over(before: Workers | None) -> Workers | None:
    """The workers of a driver that has ended: none of them runs any more, or should."""
    return None if before is None else before.model_copy(update=_GONE | {"short_since": None})


def between(before: Workers | None, engine: Engine) -> Workers | None:
    """The workers of a run none of whose drivers runs. On Dask they stay, and what lacked may still do."""
    return over(before) if before is None or engine is Engine.SPARK else before.model_copy(update=_GONE)


_GONE: dict[str, object] = {"ready": "", "wanted": None, "running": None}


def told(message: str, before: Workers | None) -> str:
    """How a driver ended, and how the last of its workers did that failed, if one has."""
    return message if before is None or not before.message else f"{message} (pod {before.message})"
