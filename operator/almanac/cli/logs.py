"""`almanac logs`: what the driver of a job's run has written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from almanac.cli.connect import connected

if TYPE_CHECKING:
    from almanac.client import Client

EPILOG = """\b
Examples:
  almanac logs ledger                 what the driver of the present run has written
  almanac logs ledger --follow        and what it goes on to write, until the run is over
  almanac logs ledger --tail 20       the last lines
  almanac logs ledger --run 20261121-021500-3f9a2c
"""


@click.command(epilog=EPILOG)
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over, through every attempt of it.")
@click.option("--tail", type=click.IntRange(min=0), metavar="LINES", help="Begin with the last lines.  [default: all]")
@click.option("--run", metavar="ID", help="Another run than the present one.")
@connected
def logs(client: Client, name: str, follow: bool, tail: int | None, run: str | None) -> None:
    """Print what the driver of a run has written.

    Pods, and their logs with them, stay for spec.ttlSecondsAfterFinished after the end of a run.
    """
    for line in client.logs(name, run=run, follow=follow, tail=tail):
        click.echo(line)
