"""What `almanac run` says of a run that went well, in the terminal."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from almanac.api import ForecastJob

if TYPE_CHECKING:
    from almanac_jobs.run import Look, Outcome, Sample

_TONES = {"good": "green", "mixed": "yellow", "bad": "red", "plain": "bold"}
SHOWN = 5
"""Periods of a sample's forecast that are shown."""


def show_outcome(job: ForecastJob, outcome: Outcome, console: Console) -> None:
    """A run in a screen: how good it was, what became of the entities, where the results are, what to type next."""
    from almanac_jobs.report import words
    from almanac_jobs.report.page import headline

    page, result = outcome.page, outcome.report.result
    assert result is not None  # noqa: S101 - a complete run has one
    told, seconds = headline(page), sum(page.durations.values())
    speed = f", {words.count(round(page.entities / seconds))} a second" if seconds > 0 else ""
    console.print(Text.assemble(("✓ ", "green"), (told.title, _TONES[told.tone])))
    console.print(Padding(Text(told.detail), (0, 0, 1, 2), expand=False))
    facts = _grid()
    facts.add_row("run", page.run)
    facts.add_row("read", f"{words.count(page.rows)} rows, {page.first} to {page.last}, frequency {page.frequency}")
    for note, number in page.notes.items():
        facts.add_row("", f"{words.count(number)} {note}")
    facts.add_row("fitted", f"{page.model}, {words.entities(page.entities)} in {words.duration(seconds)}{speed}")
    facts.add_row("written", result.uri)
    facts.add_row("report", f"{result.uri}/report.html")
    console.print(Padding(facts, (0, 0, 1, 2), expand=False))
    tables = Table.grid(padding=(0, 4))
    tables.add_row(_statuses(outcome), *([_scores(outcome)] if page.totals and page.totals.evaluated else []))
    console.print(Padding(tables, (0, 0, 1, 2), expand=False))
    example = page.highlights.biggest[0].entity if page.highlights.biggest else None
    entity = f" --entity {shlex.quote(example)}" if example is not None else ""
    show = f"{_program()} show {shlex.quote(job.spec.output.uri)}{entity}"
    console.print(Text.assemble("  Next: ", (show, "bold")), soft_wrap=True)


def _program() -> str:
    """What to type for `almanac`: an environment that is not activated has it under a path only."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "almanac" and shutil.which("almanac") is None else "almanac"


def show_sample(job: ForecastJob, sample: Sample, console: Console) -> None:
    """A sample: what was trained on what, and the beginning of its forecast."""
    from almanac_jobs.report import words

    row = sample.parameters
    console.print(Text.assemble(("✓", "green"), f" trained {sample.entity}"))
    facts = _grid()
    facts.add_row("model", f"{row['model']}{row['form']}, status {row['status']}: {words.meaning(row['status'])}")
    facts.add_row("data", f"{words.count(sample.observed)} observed periods, {sample.first} to {sample.last}")
    console.print(Padding(facts, (0, 0, 1, 2), expand=False))
    if sample.forecasts:
        names = [name for name in sample.forecasts[0] if name != "entity"]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in names:
            table.add_column(name, justify="left" if name == "time" else "right", header_style="dim")
        for one in sample.forecasts[:SHOWN]:
            values = [words.quantity(float("nan") if one[name] is None else one[name]) for name in names[1:]]
            table.add_row(str(one["time"]), *values)
        console.print(Padding(table, (0, 0, 0, 2), expand=False))
        if len(sample.forecasts) > SHOWN:
            console.print(f"  … {words.count(len(sample.forecasts))} periods in all")
        console.print()
    console.print("  This was a sample: nothing was written. Leave out --sample to run the job.", soft_wrap=True)


def show_look(job: ForecastJob, look: Look, console: Console) -> None:
    """A dry run: what there is to read, and whether memory holds it."""
    from almanac_jobs.report import words

    fits = look.memory <= look.limit
    console.print(Text.assemble(("✓ ", "green"), "the job is valid and its source can be read"))
    facts = _grid()
    size = f"{look.bytes / 2**20:,.1f} MiB" if look.bytes < 2**30 else f"{look.bytes / 2**30:,.1f} GiB"
    facts.add_row("source", f"{words.count(look.rows)} rows, {words.count(look.files)} files, {size}")
    facts.add_row("memory", f"at most {look.memory / 2**30:.1f} GiB for data, of {look.limit / 2**30:.1f} GiB")
    if not fits:
        facts.add_row("", "fits only if many rows share entity and period: otherwise the run stops before it is killed")
    facts.add_row("output", f"{job.spec.output.uri} (nothing was written)")
    console.print(Padding(facts, (0, 0, 0, 2), expand=False))


def _statuses(outcome: Outcome) -> Table:
    from almanac_jobs.report import words

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("status", header_style="dim")
    table.add_column("entities", justify="right", header_style="dim")
    for status, number in sorted(outcome.page.statuses.items(), key=lambda one: (-one[1], one[0])):
        table.add_row(status, words.count(number))
    return table


def _scores(outcome: Outcome) -> Table:
    from almanac_jobs.report.page import score_lines

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("score", "model", "seasonal naive"):
        table.add_column(name, justify="left" if name == "score" else "right", header_style="dim")
    totals = outcome.page.totals
    assert totals is not None  # noqa: S101 - asked for only then
    for line in score_lines(totals):
        ours = Text(line.model, style="green" if line.better == "model" else "")
        theirs = Text(line.baseline, style="green" if line.better == "baseline" else "")
        table.add_row(line.name, ours, theirs)
    return table


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid
