"""Executors of a run on Spark as its status has them: what the driver counts, and how the last one failed. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from almanac.api import Executors
from almanac.observed import Executor, ExecutorCounts


def status(
    before: Executors | None, counts: ExecutorCounts | None, seen: Collection[Executor], now: datetime
) -> Executors | None:
    """The executors of a run that goes on. What is not known now stays as it was; None: nothing was ever known."""
    if counts is None and not seen:
        return before
    ended = [one for one in seen if one.exit is not None and one.exit.code != 0]
    last = max(ended, key=lambda one: (one.exit and one.exit.time) or one.created, default=None)
    run = any(one.running for one in seen) or bool(counts and counts.running)
    none = not run and (any(one.waiting for one in seen) or bool(counts and counts.wanted))
    since = (before and before.none_since) or now.replace(microsecond=0)
    changes: dict[str, object] = {"none_since": since if none else None}
    if counts is not None:
        changes |= {"wanted": counts.wanted, "running": counts.running, "failed": counts.failed}
        changes["ready"] = f"{counts.running}/{counts.wanted}"
    if last is not None and last.exit is not None:
        changes["message"] = f"{last.name}: {last.exit.reason}: {last.exit.message}"
    return (before or Executors()).model_copy(update=changes)


def over(before: Executors | None) -> Executors | None:
    """The executors of a driver that has ended: none of them runs any more, or should."""
    gone = {"ready": "", "wanted": None, "running": None, "none_since": None}
    return None if before is None else before.model_copy(update=gone)


def told(message: str, before: Executors | None) -> str:
    """How a driver ended, and how the last of its executors did that failed, if one has."""
    return message if before is None or not before.message else f"{message} (executor {before.message})"
