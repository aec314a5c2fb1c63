"""A job as it changes: redrawn in place on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from almanac.cli import tables

if TYPE_CHECKING:
    from almanac.client import JobRecord


class Show(Protocol):
    """Shows a job as it is now."""

    def __call__(self, record: JobRecord) -> None: ...


@contextmanager
def changes(*, wide: bool = False, err: bool = False) -> Iterator[Show]:
    """What shows a job until the block ends, on stdout or (`err`) on stderr."""
    console = Console(stderr=err, highlight=False)
    if console.is_terminal:
        view = _View(wide=wide)
        with Live(view, console=console, refresh_per_second=4):
            yield view.show
    else:
        yield _Lines(err=err)


class _View:
    """The job with its times as they are when it is drawn."""

    def __init__(self, *, wide: bool) -> None:
        self._record: JobRecord | None = None
        self._wide = wide

    def show(self, record: JobRecord) -> None:
        self._record = record

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._record:
            yield tables.detail(self._record, datetime.now(UTC), wide=self._wide)


class _Lines:
    """A line for each change that says something new."""

    def __init__(self, *, err: bool) -> None:
        self._err = err
        self._said = ""

    def __call__(self, record: JobRecord) -> None:
        line = tables.line(record, datetime.now(UTC))
        _, _, said = line.partition(" ")
        if said != self._said:
            self._said = said
            click.echo(line, err=self._err)
