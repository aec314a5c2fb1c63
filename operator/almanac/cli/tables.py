"""Jobs in a cluster as text: rows as kubectl prints them, everything about one, YAML and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from almanac.api import Phase, Result, Trigger, Workers
from almanac.crd import RESOURCES

if TYPE_CHECKING:
    from almanac.client import JobRecord

_COLOURS = {
    Phase.PENDING: "yellow",
    Phase.RUNNING: "cyan",
    Phase.SUSPENDED: "magenta",
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
}
_GAP = "   "
_BAR = 24
_UNFOLDED = 10_000


def echo(records: Sequence[JobRecord], style: str, *, namespaces: bool = False, as_list: bool = False) -> None:
    """Print jobs to stdout in one of the formats (`almanac.cli.connect.FORMATS`)."""
    if style in ("yaml", "json"):
        click.echo(documents([record.document for record in records], style, as_list=as_list), nl=False)
    else:
        click.echo(rows(records, datetime.now(UTC), wide=style == "wide", namespaces=namespaces))


def rows(records: Sequence[JobRecord], now: datetime, *, wide: bool = False, namespaces: bool = False) -> str:
    """A line for each job under a head, as `kubectl get` prints them."""
    scores = sorted({RESOURCES[record.kind].score for record in records})
    counts = sorted({RESOURCES[record.kind].count for record in records})
    head = ["NAME", "PHASE", "REASON", "ENGINE", "PROGRESS", *(name.upper() for name in (*counts, *scores))]
    head = [
        *(["NAMESPACE"] if namespaces else []),
        *head,
        *(["WORKERS", "RUN", "RESULT"] if wide else []),
        "AGE",
    ]
    table = [head, *(_row(record, counts, scores, now, wide=wide, namespaces=namespaces) for record in records)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    for place, record in enumerate(records, start=1):
        if record.phase:
            styled = click.style(str(record.phase), fg=_COLOURS[record.phase])
            at = sum(widths[: 1 + namespaces]) + len(_GAP) * (1 + namespaces)
            lines[place] = lines[place][:at] + lines[place][at:].replace(str(record.phase), styled, 1)
    return "\n".join(lines)


def _row(
    record: JobRecord, counts: Iterable[str], scores: Iterable[str], now: datetime, *, wide: bool, namespaces: bool
) -> list[str]:
    status, result = record.status, record.result
    counted = RESOURCES[record.kind].count
    told = [
        *([record.namespace] if namespaces else []),
        record.name,
        str(record.phase or ""),
        record.reason,
        str(status.engine or ""),
        status.progress,
        *(f"{getattr(result, name) or 0:,}" if result and name == counted else "" for name in counts),
        *(_score(result.scores[score]) if result and score in result.scores else "" for score in scores),
    ]
    workers = status.workers.ready if status.workers else ""
    more = [workers, status.run.id if status.run else "", result.uri if result else ""]
    return [*told, *(more if wide else []), age(record.created, now)]


def _score(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.3f}"


def age(since: datetime | None, now: datetime) -> str:
    """How long ago something was, as kubectl says it: 45s, 12m, 3h, 5d."""
    if since is None:
        return ""
    seconds = max(0, int((now - since).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def detail(record: JobRecord, now: datetime, *, wide: bool = False) -> RenderableType:
    """Everything worth knowing about one job; with `wide`, its conditions and former runs too."""
    status, grid = record.status, Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("Job", f"{record.reference} in namespace {record.namespace}, {age(record.created, now)} old")
    grid.add_row("Phase", _phase(record))
    if record.message:
        grid.add_row("Reason", Text(f"{record.reason}: {record.message}"))
    if status.phase is Phase.RUNNING and (status.stage or status.progress):
        grid.add_row("Progress", _progress(record))
    if status.workers:
        grid.add_row("Workers", Text(_workers(status.workers)))
    if status.run:
        grid.add_row("Run", Text(_run(record, now)))
    if record.result:
        grid.add_row("Result", Text(record.result.uri))
        grid.add_row("", Text(summary(record.result)))
        if note := outdated(record):
            grid.add_row("", Text(note, style="dim"))
    if record.suspended and record.scheduled:
        grid.add_row("Next run", f"none: spec.suspend is true (`almanac cancel --undo {record.reference.typed}`)")
    elif status.next_schedule_time:
        grid.add_row("Next run", f"{status.next_schedule_time.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    return Group(grid, Text(), _conditions(record, now), *_history(record)) if wide else grid


def _phase(record: JobRecord) -> Text:
    if record.phase is None:
        return Text(
            f"none: no operator has looked at it yet. Is one there that watches namespace {record.namespace}?",
            style="yellow",
        )
    text = Text(str(record.phase), style=_COLOURS[record.phase])
    if not record.current:
        text.append("  (of the spec before the last change)", style="dim")
    return text


def _progress(record: JobRecord) -> RenderableType:
    status, grid = record.status, Table.grid(padding=(0, 2))
    told = Text(f"{status.stage} {status.progress}".strip())
    if status.done is not None and status.total:
        told.append(f"  {status.done:,} of {status.total:,}", style="dim")
        grid.add_row(ProgressBar(status.total, status.done, width=_BAR), told)
    else:
        grid.add_row(told)
    return grid


def _workers(them: Workers) -> str:
    told = [f"{them.running} of {them.wanted} running"] if them.ready else []
    told += [f"{them.failed} failed"] if them.failed else []
    return ", ".join(told) + (f" ({them.message})" if them.message else "")


def _run(record: JobRecord, now: datetime) -> str:
    run, engine = record.status.run, record.status.engine
    if run is None:
        return ""
    end = run.end_time or now
    told = [run.id]
    told += [f"number {run.number}"] if run.number else []
    told += [f"started by {_STARTERS[run.trigger]}"] if run.trigger else []
    told += [f"engine {engine}"] if engine else []
    told += [f"attempt {run.attempts}"] if (run.attempts or 1) > 1 else []
    told += [f"{'took' if run.end_time else 'for'} {age(run.start_time, end)}"] if run.start_time else []
    return ", ".join(told)


_STARTERS = {Trigger.SPEC: "its spec", Trigger.RESTART: "restartNonce", Trigger.SCHEDULE: "its schedule"}


def summary(result: Result) -> str:
    """A result in one line: how much, and the score that its kind's table shows."""
    read, scores = f"{result.rows:,} rows", result.scores
    told = [read] if result.entities is None else [f"{result.entities:,} entities", f"{read} read"]
    told[1:1] = [f"{result.failed_entities:,} of them failed"] if result.failed_entities else []
    told += [f"{scores[name]:,.0f} {name}" for name in ("flagged", "changed") if name in scores]
    if "mase" in scores:
        naive = scores.get("seasonalnaive_mase")
        told += [f"MASE {_score(scores['mase'])}" + (f" (seasonal naive {_score(naive)})" if naive is not None else "")]
    if "beats_seasonalnaive" in scores:
        told += [f"beats seasonal naive on {scores['beats_seasonalnaive']:.0%} of those tested".replace("%", " %")]
    return ", ".join(told)


def outdated(record: JobRecord) -> str:
    """That a later run than that of the result has failed; empty where it has not."""
    run, result = record.status.run, record.result
    if run is None or result is None or record.phase is not Phase.FAILED or result.uri.endswith(run.id):
        return ""
    return f"of an earlier run: {run.id} has failed ({record.reason})"


def _conditions(record: JobRecord, now: datetime) -> RenderableType:
    table = Table("CONDITION", "STATUS", "SINCE", "REASON", box=None, pad_edge=False, header_style="dim")
    for one in record.status.conditions:
        table.add_row(one.type, str(one.status), age(one.last_transition_time, now), one.reason)
    return table


def _history(record: JobRecord) -> list[RenderableType]:
    if not record.status.history:
        return []
    table = Table("RUN", "PHASE", "REASON", "TOOK", "RESULT", box=None, pad_edge=False, header_style="dim")
    for past in record.status.history:
        took = age(past.start_time, past.end_time) if past.start_time and past.end_time else ""
        phase = Text(str(past.phase or ""), style=_COLOURS[past.phase] if past.phase else "")
        table.add_row(past.id, phase, past.reason, took, Text(past.uri, overflow="fold"))
    return [Text(), table]


def line(record: JobRecord, now: datetime) -> str:
    """One job at one moment on one line, for logs."""
    status, moment = record.status, f"{now.astimezone(UTC):%H:%M:%S}Z {record.name}"
    if record.phase is None:
        return f"{moment} waits for an operator of namespace {record.namespace}"
    if not record.current:
        return f"{moment} waits for the operator"
    running = (status.stage, status.progress) if status.phase is Phase.RUNNING else ()
    said = f"{record.reason}: {record.message}" if record.message else ""
    return " ".join(text for text in (moment, str(record.phase or ""), *running, said) if text)


def print_detail(records: Sequence[JobRecord], *, wide: bool = False) -> None:
    """Print everything about some jobs to stdout; where that is no terminal, no line is folded."""
    console, now = Console(highlight=False), datetime.now(UTC)
    if not console.is_terminal:
        console.width = _UNFOLDED
    for place, record in enumerate(records):
        with console.capture() as capture:
            console.print(detail(record, now, wide=wide))
        text = "\n".join(one.rstrip() for one in capture.get().splitlines())
        click.echo(f"\n{text}" if place else text)


def documents(values: Sequence[Mapping[str, Any]], style: str, *, as_list: bool = False) -> str:
    """Objects for programs: YAML documents, or JSON. Several are a List where that is JSON or `as_list`."""
    kept = [_tidy(value) for value in values]
    several = as_list or (style == "json" and len(kept) != 1)
    whole: list[Any] = [{"apiVersion": "v1", "kind": "List", "items": kept}] if several else kept
    if style == "json":
        return json.dumps(whole[0], indent=2, ensure_ascii=False) + "\n"
    return "---\n".join(to_yaml(one) for one in whole)


def to_yaml(value: Any) -> str:
    """A value as a YAML document, its fields in their order, longer texts as blocks."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _tidy(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without the record of who manages which field, which nobody reads."""
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):
        return dict(value)
    return {**value, "metadata": {name: one for name, one in metadata.items() if name != "managedFields"}}


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice, and texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
