"""How far a run is: one counter a stage, and its two displays, a bar for terminals and plain lines for logs.

The pipeline counts and never prints; displays read snapshots from a thread of their own, so that counting costs
nothing and a slow terminal holds nobody up. A run is also stopped here: whoever counts is told at the next count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from almanac.api import Engine, JobError, Reason
from almanac_jobs.choice import Choice
from almanac_jobs.report import words

LINE_EVERY = 5.0
"""Seconds between two lines of a log."""


class Interrupted(JobError):  # noqa: N818 - named as the reason that it carries
    """The run was asked to stop, by a signal or because another part of it has failed, and does."""

    def __init__(self) -> None:
        super().__init__(Reason.INTERRUPTED, "stopped before it was complete: results of earlier runs are as they were")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One stage at one moment. `total` is None where it is not known, `seconds` is the time since the stage began."""

    stage: str
    unit: str
    done: int
    total: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Units a second, on average since the stage began; 0 when there is nothing to divide yet."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time to the end of the stage at this rate; None as long as nobody can tell."""
        if self.total is None or self.done == 0 or self.seconds <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate


@dataclass(frozen=True, slots=True)
class Workers:
    """How many workers (executors, on Spark) a cluster is to have, has, and has lost without meaning to."""

    wanted: int
    running: int
    failed: int


class Progress:
    """What a run has done so far. Any thread may count; `stop` makes the next count raise `Interrupted`.

    `guard` is called at every count, and raises where the run may not go on, e.g. for want of memory.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, guard: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._guard = guard
        self._lock = threading.Lock()
        self._stopped = False
        self._finished: list[Snapshot] = []
        self._current: Snapshot | None = None
        self._begun = 0.0
        self.workers: Workers | None = None
        """Those of the run, where it has any; whoever starts them says so."""
        self.choice: Choice | None = None
        """The engine of the run, once it is chosen, and why."""

    def engine(self, asked: Engine) -> Engine:
        """The engine that a run uses for which `asked` is named: this process, as long as nothing else is chosen."""
        found = self.choice.engine if self.choice else asked
        return Engine.LOCAL if found is Engine.AUTO else found

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage of `total` units (None: unknown); the stage before it ends here."""
        self.check()
        with self._lock:
            self._end_stage()
            self._current, self._begun = Snapshot(stage, unit, 0, total, 0.0), self._clock()

    def expect(self, total: int) -> None:
        """Say how many units the current stage has, once that is known."""
        with self._lock:
            if self._current is not None:
                self._current = replace(self._current, total=total)

    def advance(self, amount: int = 1) -> None:
        """Count `amount` units of the current stage as done."""
        self.check()
        with self._lock:
            if self._current is not None:
                self._current = replace(self._current, done=self._current.done + amount)

    def reach(self, done: int) -> None:
        """Say that so many units of the current stage are done, in all."""
        self.check()
        with self._lock:
            if self._current is not None:
                self._current = replace(self._current, done=done)

    def finish(self) -> None:
        """End the last stage."""
        with self._lock:
            self._end_stage()

    def stop(self) -> None:
        """Ask the run to stop; safe to call from a signal handler."""
        self._stopped = True

    def check(self) -> None:
        """Raise `Interrupted` if the run was asked to stop, and what the guard has against its going on."""
        if self._stopped:
            raise Interrupted
        self._guard()

    def snapshot(self) -> Snapshot | None:
        """The current stage; None before the first and after the last."""
        with self._lock:
            return self._aged()

    def finished(self) -> tuple[Snapshot, ...]:
        """The stages that have ended, in order."""
        with self._lock:
            return tuple(self._finished)

    def _aged(self) -> Snapshot | None:
        return None if self._current is None else replace(self._current, seconds=self._clock() - self._begun)

    def _end_stage(self) -> None:
        ended = self._aged()
        if ended is not None:
            self._finished.append(ended)
        self._current = None


def line(at: Snapshot, *, ended: bool = False) -> str:
    """A stage as one line of a log: `fit 51,200/100,000 series, 25,031 series/s, 2 s left`."""
    parts = [f"{at.stage} {_amount(at)}".rstrip()]
    if _rate(at):
        parts.append(_rate(at))
    if ended:
        parts.append(f"done in {_duration(at.seconds)}")
    elif at.seconds_left is not None:
        parts.append(f"{_duration(at.seconds_left)} left")
    return ", ".join(parts)


@contextmanager
def lines(progress: Progress, stream: TextIO, every: float = LINE_EVERY) -> Iterator[None]:
    """Write a line to `stream` when a stage ends, and every `every` seconds while one lasts."""
    over = threading.Event()
    told, chosen = 0, False

    def tell(*, current: bool) -> None:
        nonlocal told, chosen
        ended, choice = progress.finished(), progress.choice
        text = [f"engine {choice.engine}: {choice.why}"] if choice and not chosen else []
        text += [line(at, ended=True) for at in ended[told:]]
        told, chosen = len(ended), choice is not None
        now = progress.snapshot() if current else None
        text += [line(now)] if now is not None and now.done else []
        if text:
            stream.write("".join(f"{one}\n" for one in text))
            stream.flush()

    def watch() -> None:
        while not over.wait(every):
            tell(current=True)

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        tell(current=False)


@contextmanager
def bar(progress: Progress, console: Console) -> Iterator[None]:
    """Keep one row a stage at the bottom of the terminal: what is over, and a bar for what goes on."""
    live = Live(get_renderable=lambda: _rows(progress), console=console, refresh_per_second=8, transient=True)
    with live:
        yield


def _rows(progress: Progress) -> Table:
    rows = Table.grid(padding=(0, 2))
    for _ in range(6):
        rows.add_column(no_wrap=True)
    if progress.choice and progress.choice.engine is not Engine.LOCAL:
        rows.add_row(Text("✓", style="green"), f"engine {progress.choice.engine}")
    for at in progress.finished():
        rows.add_row(Text("✓", style="green"), at.stage, "", _amount(at), _rate(at), _duration(at.seconds))
    now = progress.snapshot()
    if now is not None:
        pulse = now.total is None
        drawn = ProgressBar(total=now.total or 1, completed=now.done, width=20, pulse=pulse, animation_time=now.seconds)
        left = "" if now.seconds_left is None else f"{_duration(now.seconds_left)} left"
        amount = _amount(now).removesuffix(now.unit).rstrip() if _rate(now) else _amount(now)  # the rate has the unit
        rows.add_row(Text("●", style="cyan"), Text(now.stage, style="bold"), drawn, amount, _rate(now), left)
    return rows


def _rate(at: Snapshot) -> str:
    return f"{at.rate:,.0f} {at.unit}/s" if at.rate >= 1 and at.unit else ""


def _amount(at: Snapshot) -> str:
    if not at.unit:
        return ""
    known = at.total is not None and at.total != at.done
    return f"{at.done:,}/{at.total:,} {at.unit}" if known else f"{at.done:,} {at.unit}"


def _duration(seconds: float) -> str:
    return words.duration(seconds).replace("\u202f", " ")  # logs are searched with ordinary spaces
