"""`almanac show`: one entity of a run: its forecast and the end of its history, or its anomalies and their reasons."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from almanac.api.errors import JobError, Reason

if TYPE_CHECKING:
    from almanac_jobs.extracted import Extract
    from almanac_jobs.model import EntityModel, Findings, Model
    from almanac_jobs.report.highlights import Fan

LISTED = 10
"""Entities that are named where none was asked for."""
ROWS = 7
"""Periods of the forecast that are written as numbers."""
HORIZON = 30
"""Periods to forecast where neither the command nor a run says how many."""
EXTENSIONS = (".png", ".svg")

EPILOG = """\b
Examples:
  almanac show s3://ledger/models/forecast                        which entities there are
  almanac show s3://ledger/models/forecast --entity A-1007        one of the newest complete run
  almanac show out/runs/20261121-021500-3f9a2c --entity A-1007    one of another run
  almanac show out --entity A-1007 --horizon 90                   further ahead
  almanac show out --entity A-1007 --output forecast.png          as a picture
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One entity. `parameters` and `scores` are its rows of these tables; `scores` is empty if it was not tested."""

    entity: str
    source: str
    fan: Fan
    parameters: Mapping[str, Any]
    scores: Mapping[str, Any]
    forecasts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Oddities:
    """The anomalies of one entity. `document` is its explanation; None where no row is flagged."""

    entity: str
    source: str
    rows: int
    highest: float
    document: Mapping[str, Any] | None


@click.command(epilog=EPILOG)
@click.argument("uri")
@click.option("-e", "--entity", metavar="NAME", help="The entity; without it, a few are listed, or the oddest.")
@click.option("--horizon", type=click.IntRange(1, 10_000), metavar="PERIODS", help="Forecast further, or less far.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture: a .png or .svg file."
)
def show(uri: str, entity: str | None, horizon: int | None, output: Path | None) -> None:
    """Draw the forecast of one entity, or tell its anomalies and why.

    Of a forecast it shows the history, status, scores and parameters too.

    URI is the output.uri of a job, or the folder of one of its runs.
    """
    if output is not None and output.suffix.lower() not in EXTENSIONS:
        raise click.BadParameter(f"`{output}` must end in .png or .svg", param_hint="'--output'")
    shown = look_up(uri, entity, horizon)
    if shown is None:
        return
    if isinstance(shown, Oddities):
        if output is not None or horizon is not None:
            raise click.UsageError(f"--{'output' if output else 'horizon'} is for forecasts, and {uri} holds anomalies")
        _tell(shown, Console(highlight=False))
    elif output is None:
        _print(shown, Console(highlight=False))
    else:
        _save(shown, output)


def look_up(uri: str, entity: str | None, horizon: int | None) -> Shown | Oddities | None:
    """The entity; None if none was asked for, and some were listed instead, or there is a data set without any.

    Raises:
        JobError: if there is no complete run, or it has no such entity.
    """
    try:
        from almanac_jobs.extracted import Extract
        from almanac_jobs.model import EntityModel, Model, UnknownEntityError, read

        model = read(uri)
    except ImportError as error:
        raise JobError(
            Reason.NOT_INSTALLED,
            f"almanac show needs {error.name}, which is not installed: pip install 'almanac[local]'",
        ) from error
    if isinstance(model, Extract):
        _contents(model, uri)
        return None
    if isinstance(model, EntityModel):
        return _alone(model, entity, horizon)
    if entity is None:
        _list(model, uri) if isinstance(model, Model) else _oddest(model, uri)
        return None
    try:
        return _of_run(model, entity, horizon) if isinstance(model, Model) else _odd(model, entity)
    except UnknownEntityError as error:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"--entity: {error}") from error


def _of_run(model: Model, entity: str, horizon: int | None) -> Shown:
    parameters = model.parameters(entity).to_pylist()[0]
    scores = model.scores(entity)
    forecasts = model.forecasts(entity) if horizon is None else model.forecast(horizon, entity)
    job = model.report["job"]
    return Shown(
        entity=str(parameters["entity"]),
        source=f"{job['namespace']}/{job['name']}, run {model.report['run']}",
        fan=_fan(forecasts, model.history(entity), model.settings),
        parameters=parameters,
        scores=scores.to_pylist()[0] if scores is not None else {},
        forecasts=forecasts.to_pylist(),
    )


def _odd(model: Findings, entity: str) -> Oddities:
    """An entity of a run of an AnomalyJob."""
    row = model.rows_of("entities", entity).to_pylist()[0]
    job = model.report["job"]
    return Oddities(
        entity=str(row["entity"]),
        source=f"{job['namespace']}/{job['name']}, run {model.report['run']}",
        rows=row["rows"],
        highest=row["score"],
        document=model.explanation(entity),
    )


def _tell(odd: Oddities, console: Console) -> None:
    from almanac_jobs.report.words import count

    anomalies = odd.document["anomalies"] if odd.document else []
    console.print(
        Text.assemble((odd.entity, "bold"), f"   {count(len(anomalies))} of {count(odd.rows)} rows are flagged")
    )
    console.print(Text(f"{odd.source}, highest score {odd.highest:.4f}", style="dim"))
    console.print()
    if not odd.document:
        return
    table = _table("because of", "contribution", "")
    for one in odd.document["features"]:
        table.add_row(one["feature"], _quantity(one["contribution"]), one["direction"])
    console.print(Padding(table, (0, 0, 1, 0)))
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("time", *(["id"] if "id" in anomalies[0] else []), "score", "because of"):
        rows.add_column(name, justify="right" if name == "score" else "left", header_style="dim")
    for one in anomalies[:LISTED]:
        reasons = ", ".join(f"{told['feature']} {told['value'] or 'missing'}" for told in one["features"][:3])
        own = [str(one["id"])] if "id" in one else []
        rows.add_row(str(one["time"]), *own, f"{one['score']:.4f}", reasons)
    if len(anomalies) > LISTED:
        rows.add_row(Text(f"… {len(anomalies)} in all", style="dim"))
    console.print(rows)


def _alone(model: EntityModel, entity: str | None, horizon: int | None) -> Shown:
    """The one entity of a folder (`layout: perEntity`), which holds its model and nothing else."""
    name = str(model.settings["entity"])
    if entity not in (None, name):
        raise JobError(Reason.SOURCE_NOT_FOUND, f"--entity: this is the folder of entity `{name}`, not of `{entity}`")
    forecasts = model.forecast(horizon or HORIZON)
    parameters = model.parameters.to_pylist()[0]
    return Shown(name, "a model alone", _fan(forecasts, None, model.settings), parameters, {}, forecasts.to_pylist())


def _fan(forecasts: Any, history: Any, settings: Mapping[str, Any]) -> Fan:
    """What a chart draws, from an entity's rows of the tables forecasts and history."""
    import numpy as np

    from almanac_jobs.calendar import Calendar, Frequency
    from almanac_jobs.report.highlights import Band, Fan

    times = forecasts.column("time").combine_chunks()
    calendar = Calendar(Frequency.parse(settings["frequency"]), times.type, settings["timeZone"])
    starts = calendar.frequency.starts
    past, values = np.empty(0, np.int64), np.empty(0)
    if history is not None and len(found := history.column("values")[0].values):
        values = found.to_numpy(zero_copy_only=False)
        end = calendar.periods(history.column("end").combine_chunks())[0]
        past = np.arange(end - len(values) + 1, end + 1)

    def column(name: str) -> Any:
        return forecasts.column(name).to_numpy()

    bands = [Band(level, column(f"lo{level:g}"), column(f"hi{level:g}")) for level in settings["intervals"]]
    return Fan(starts(past), values, starts(calendar.periods(times)), column("mean"), tuple(bands))


def _contents(extract: Extract, uri: str) -> None:
    """What a data set is of, its columns, and how to read it."""
    from almanac_jobs.report.words import count

    source = extract.report["source"]
    console = Console(highlight=False)
    rows, files = count(source["rows"]), count(len(extract.uris))
    console.print(Text.assemble((f"{rows} rows", "bold"), f"   as of {source['snapshot']}, in {files} files"))
    job = extract.report["job"]
    console.print(Text(f"{job['namespace']}/{job['name']}, run {extract.report['run']}", style="dim"))
    table = _table("column", "in the database", "in Parquet")
    for one in extract.report["extract"]["columns"]:
        table.add_row(one["name"], one["sqlType"], one["type"])
    console.print(Padding(table, (1, 0)))
    click.echo(f"In Python: almanac_jobs.load({uri!r}).to_table()")


def _list(model: Model, uri: str) -> None:
    """A few entities, and how to see one."""
    from almanac_jobs.report.words import entities

    some, total = model.first_entities(LISTED), int(model.report["entities"])
    click.echo(f"{entities(total)}{', among them' if total > len(some) else ''}:")
    for one in some:
        click.echo(f"  {one}")
    _go_on(uri, some)


def _oddest(model: Findings, uri: str) -> None:
    """The entities with the most flagged rows, and how to see why."""
    from almanac_jobs.report.words import count, entities

    found, console = model.oddest(LISTED).to_pylist(), Console(highlight=False)
    console.print(Text(entities(int(model.report["entities"])), style="bold"))
    table = _table("the oddest", "flagged", "of rows", "highest score")
    for one in found:
        table.add_row(str(one["entity"]), count(one["flagged"]), count(one["rows"]), f"{one['score']:.4f}")
    console.print(table)
    _go_on(uri, [one["entity"] for one in found])


def _go_on(uri: str, some: Sequence[object]) -> None:
    example = str(some[0]) if some else "NAME"
    click.echo(f"\nalmanac show {shlex.quote(uri)} --entity {shlex.quote(example)}")


def _save(shown: Shown, output: Path) -> None:
    from almanac_jobs.report.charts import fan_file

    picture = fan_file(shown.fan, f"{shown.entity}   {_model(shown)}", output.suffix.lower().removeprefix("."))
    try:
        output.write_bytes(picture)
    except OSError as error:
        raise click.BadParameter(f"cannot write `{output}`: {error.strerror}", param_hint="'--output'") from error
    click.echo(f"wrote {output}", err=True)


def _print(shown: Shown, console: Console) -> None:
    from almanac.cli import fan
    from almanac_jobs.report.words import count, meaning

    parameters, status = shown.parameters, shown.parameters["status"]
    console.print(Text.assemble((shown.entity, "bold"), f"   {_model(shown)}   {status}: {meaning(status)}"))
    end = f" to {parameters['end']}" if parameters["end"] is not None else ""
    console.print(Text(f"{shown.source}, {count(parameters['observations'])} periods{end}", style="dim"))
    console.print()
    if shown.forecasts:
        height = min(max(console.height - 18, 12), 20)
        console.print(Text.from_ansi(fan.draw(shown.fan, console.width, height, colour=True)), soft_wrap=True)
        console.print(Padding(fan.legend(shown.fan), (0, 0, 1, 2)))
    console.print(Columns([Padding(table, (0, 4, 1, 0)) for table in _tables(shown)]))


def _model(shown: Shown) -> str:
    return f"{shown.parameters['model']}{shown.parameters['form']}"


def _tables(shown: Shown) -> list[RenderableType]:
    return [
        table for table in (_forecast(shown), _scores(shown.scores), _coefficients(shown.parameters)) if table.row_count
    ]


def _forecast(shown: Shown) -> Table:
    """The next few periods as numbers."""
    names = [name for name in shown.forecasts[0] if name != "entity"] if shown.forecasts else []
    table = _table("forecast", *names[1:])
    for row in shown.forecasts[:ROWS]:
        table.add_row(str(row["time"]), *(_quantity(row[name]) for name in names[1:]))
    if len(shown.forecasts) > ROWS:
        table.add_row(Text(f"… {len(shown.forecasts)} in all", style="dim"))
    return table


def _scores(scores: Mapping[str, Any]) -> Table:
    """The scores of the entity's model beside those of seasonal naive."""
    from almanac_jobs.report.words import measure

    table = _table("score", "model", "seasonal naive")
    for name, theirs in scores.items():
        own = name.removeprefix("seasonalnaive_")
        if own != name and scores["windows"]:
            table.add_row(measure(own).title, *(measure(own).write(_number(one)) for one in (scores[own], theirs)))
    return table


def _coefficients(parameters: Mapping[str, Any]) -> Table:
    """The fitted model, as far as it has numbers that say something by themselves."""
    table = _table("parameter", "")
    rest = [("sigma2", parameters["sigma2"]), ("loglik", parameters["loglik"]), ("aicc", parameters["aicc"])]
    for name, value in [*parameters["coefficients"], *rest]:
        if value is not None:
            table.add_row(name, _quantity(value))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, header_style="dim", no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", header_style="dim", no_wrap=True)
    return table


def _quantity(value: float | None) -> str:
    from almanac_jobs.report.words import quantity

    return quantity(_number(value))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
