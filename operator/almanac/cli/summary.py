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

from almanac.api import Engine, Job, Report

if TYPE_CHECKING:
    from almanac_jobs.choice import Choice
    from almanac_jobs.detecting import Trial
    from almanac_jobs.forecasting import Sample
    from almanac_jobs.report.anomalies import AnomalyData
    from almanac_jobs.report.extract import ExtractData, Preview
    from almanac_jobs.report.page import Headline, ReportData
    from almanac_jobs.run import Outcome
    from almanac_jobs.task import Look

_TONES = {"good": "green", "mixed": "yellow", "bad": "red", "plain": "bold"}
SHOWN = 5
"""Periods of a sample's forecast that are shown."""
COLUMNS = 40
"""Columns of an extract that are shown."""


def show_outcome(job: Job, outcome: Outcome, console: Console) -> None:
    """A run in a screen: how good it was, what became of the data, where the results are, what to type next."""
    from almanac_jobs.report.extract import ExtractData
    from almanac_jobs.report.page import ReportData

    if isinstance(outcome.page, ReportData):
        _show_forecasts(job, outcome.page, outcome.report, console)
    elif isinstance(outcome.page, ExtractData):
        _show_extract(outcome.page, outcome.report, console)
    else:
        _show_anomalies(job, outcome.page, outcome.report, console)


def _show_forecasts(job: Job, page: ReportData, report: Report, console: Console) -> None:
    from almanac_jobs.report import words
    from almanac_jobs.report.page import headline

    seconds = sum(page.durations.values())
    speed = f", {words.count(round(page.entities / seconds))} a second" if seconds > 0 else ""
    _headline(headline(page), console)
    facts = _grid()
    facts.add_row("run", page.run)
    facts.add_row("read", f"{words.count(page.rows)} rows, {page.first} to {page.last}, frequency {page.frequency}")
    for note, number in page.notes.items():
        facts.add_row("", f"{words.count(number)} {note}")
    _engine(facts, report)
    facts.add_row("fitted", f"{page.model}, {words.entities(page.entities)} in {words.duration(seconds)}{speed}")
    _written(facts, report, console)
    tables = Table.grid(padding=(0, 4))
    tables.add_row(_statuses(page), *([_scores(page)] if page.totals and page.totals.evaluated else []))
    console.print(Padding(tables, (0, 0, 1, 2), expand=False))
    _next(job, page.highlights.biggest[0].entity if page.highlights.biggest else None, console)


def _show_anomalies(job: Job, page: AnomalyData, report: Report, console: Console) -> None:
    from almanac_jobs.report import words
    from almanac_jobs.report.anomalies import headline

    seconds = sum(page.durations.values())
    _headline(headline(page), console)
    facts = _grid()
    facts.add_row("run", page.run)
    facts.add_row("read", f"{words.count(page.rows)} rows, {page.first} to {page.last}")
    for note, number in page.notes.items():
        facts.add_row("", f"{words.count(number)} {note}")
    for name, why in page.left_out.items():
        facts.add_row("left out", f"column {name}: {why}")
    _engine(facts, report)
    facts.add_row(
        "trained", f"{page.detector} on {words.count(len(page.features))} features in {words.duration(seconds)}"
    )
    _written(facts, report, console)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("entity", "time", "score", "because of"):
        table.add_column(name, justify="right" if name == "score" else "left", header_style="dim")
    for row in page.worst[:SHOWN]:
        reasons = ", ".join(f"{name} {value or 'missing'}" for name, value, _ in row.reasons(page.features, 2))
        table.add_row(row.keys["entity"], row.keys["time"], f"{row.score:.4f}", reasons)
    console.print(Padding(table, (0, 0, 1, 2), expand=False))
    _next(job, page.worst[0].keys["entity"] if page.worst else None, console)


def _show_extract(page: ExtractData, report: Report, console: Console) -> None:
    from almanac_jobs.report import words
    from almanac_jobs.report.extract import headline

    seconds = sum(page.durations.values())
    speed = f", {words.count(round(page.read / seconds))} a second" if seconds > 0 else ""
    _headline(headline(page), console)
    facts = _grid()
    facts.add_row("run", page.run)
    facts.add_row("read", f"{words.count(page.read)} rows in {words.duration(seconds)}{speed}")
    facts.add_row("key", ", ".join(page.key) or "none: one connection has read everything")
    _written(facts, report, console)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("column", "in the database", "in Parquet"):
        table.add_column(name, header_style="dim")
    for column in page.columns[:COLUMNS]:
        table.add_row(*column)
    console.print(Padding(table, (0, 0, 1, 2), expand=False))
    if len(page.columns) > COLUMNS:
        console.print(f"  … {words.count(len(page.columns))} columns in all")


def _headline(told: Headline, console: Console) -> None:
    console.print(Text.assemble(("✓ ", "green"), (told.title, _TONES[told.tone])))
    console.print(Padding(Text(told.detail), (0, 0, 1, 2), expand=False))


def _engine(facts: Table, report: Report) -> None:
    """What computed it, where that is not simply this process."""
    if report.engine is not Engine.LOCAL:
        facts.add_row("engine", f"{report.engine}: {report.engine_reason}")


def _written(facts: Table, report: Report, console: Console) -> None:
    assert report.result is not None  # noqa: S101 - a complete run has one
    facts.add_row("written", report.result.uri)
    facts.add_row("report", f"{report.result.uri}/report.html")
    console.print(Padding(facts, (0, 0, 1, 2), expand=False))


def _next(job: Job, example: str | None, console: Console) -> None:
    """What to type to see an entity."""
    entity = f" --entity {shlex.quote(example)}" if example is not None else ""
    show = f"{_program()} show {shlex.quote(job.spec.output.uri)}{entity}"
    console.print(Text.assemble("  Next: ", (show, "bold")), soft_wrap=True)


def _program() -> str:
    """What to type for `almanac`: an environment that is not activated has it under a path only."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "almanac" and shutil.which("almanac") is None else "almanac"


def show_sample(sample: Sample | Trial | Preview, console: Console) -> None:
    """A sample: what was trained on what, and what came of it; of an extract, its columns and first rows."""
    from almanac_jobs.forecasting import Sample
    from almanac_jobs.report.extract import Preview

    if isinstance(sample, Sample):
        _show_sample(sample, console)
    elif isinstance(sample, Preview):
        _show_preview(sample, console)
    else:
        _show_trial(sample, console)
    console.print("  This was a sample: nothing was written. Leave out --sample to run the job.", soft_wrap=True)


def _show_preview(preview: Preview, console: Console) -> None:
    key = f"by {', '.join(preview.key)}" if preview.key else "which has no key"
    console.print(Text.assemble(("✓", "green"), f" read the first rows of {preview.relation}, {key}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("column", "in the database", "in Parquet", "first rows"):
        table.add_column(name, header_style="dim")
    for name, declared, kind in preview.columns:
        table.add_row(name, declared, kind, ", ".join(str(row[name]) for row in preview.rows[:3]))
    console.print(Padding(table, (0, 0, 1, 2), expand=False))


def _show_trial(trial: Trial, console: Console) -> None:
    from almanac_jobs.report import words

    told = f" trained {trial.detector} on the first {words.count(trial.rows)} rows: {trial.why}"
    console.print(Text.assemble(("✓", "green"), told))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("time", "score", "because of"):
        table.add_column(name, justify="right" if name == "score" else "left", header_style="dim")
    for row in trial.oddest:
        reasons = ", ".join(f"{one['feature']} {one['value'] or 'missing'}" for one in row["features"][:3])
        table.add_row(str(row["time"]), f"{row['score']:.4f}", reasons)
    console.print(Padding(table, (0, 0, 1, 2), expand=False))


def _show_sample(sample: Sample, console: Console) -> None:
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


def show_look(job: Job, look: Look, chosen: Choice, console: Console) -> None:
    """A dry run: what there is to read, and which engine it would be read on."""
    from almanac_jobs.report import words

    footprint = look.footprint
    fits = footprint.memory <= look.limit or chosen.engine is not Engine.LOCAL
    console.print(Text.assemble(("✓ ", "green"), "the job is valid and its source can be read"))
    facts = _grid()
    size = f"{look.bytes / 2**20:,.1f} MiB" if look.bytes < 2**30 else f"{look.bytes / 2**30:,.1f} GiB"
    facts.add_row("source", f"{words.count(footprint.rows)} rows, {words.count(look.files)} files, {size}")
    facts.add_row("memory", f"at most {footprint.memory / 2**30:.1f} GiB for data, of {look.limit / 2**30:.1f} GiB")
    if not fits:
        facts.add_row("", "fits only if many rows share entity and period: otherwise the run stops before it is killed")
    facts.add_row("engine", f"{chosen.engine}: {chosen.why}")
    facts.add_row("output", f"{job.spec.output.uri} (nothing was written)")
    console.print(Padding(facts, (0, 0, 0, 2), expand=False))


def _statuses(page: ReportData) -> Table:
    from almanac_jobs.report import words

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("status", header_style="dim")
    table.add_column("entities", justify="right", header_style="dim")
    for status, number in sorted(page.statuses.items(), key=lambda one: (-one[1], one[0])):
        table.add_row(status, words.count(number))
    return table


def _scores(page: ReportData) -> Table:
    from almanac_jobs.report.page import score_lines

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("score", "model", "seasonal naive"):
        table.add_column(name, justify="left" if name == "score" else "right", header_style="dim")
    totals = page.totals
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
