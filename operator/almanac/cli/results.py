"""`almanac results`: where the results of a job are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from almanac.cli import tables
from almanac.cli.connect import connected, output_option

if TYPE_CHECKING:
    from almanac.api import Result
    from almanac.client import Client

EPILOG = """\b
Examples:
  almanac results ledger                            where they are, how many, how good
  almanac results ledger -o wide                    with every score
  almanac show "$(almanac results ledger -o uri)"   look at them
  aws s3 ls "$(almanac results ledger -o uri)/"
"""


@click.command(epilog=EPILOG)
@click.argument("name")
@output_option("uri")
@connected
def results(client: Client, name: str, output: str) -> None:
    """Show where the last complete run of a job has written its results, and what they are worth.

    Ends with 66 if no run is complete yet.
    """
    record = client.status(name)
    result = record.result or client.results(name)
    if output == "uri":
        click.echo(result.uri)
    elif output == "json":
        click.echo(json.dumps(result.model_dump(mode="json"), indent=2, ensure_ascii=False))
    elif output == "yaml":
        click.echo(tables.to_yaml(result.model_dump(mode="json")), nl=False)
    else:
        _tell(result, wide=output == "wide")
        if note := tables.outdated(record):
            click.secho(f"These are results {note}", dim=True, err=True)


def _tell(result: Result, *, wide: bool) -> None:
    told = [("Folder", result.uri), ("Content", tables.summary(result))]
    told += [("Checksum", result.checksum)] if result.checksum else []
    if wide:
        told += [(name, f"{value:.4f}") for name, value in result.scores.items()]
    width = max(len(name) for name, _ in told)
    for name, text in told:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {text}")
