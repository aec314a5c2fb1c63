"""`almanac status`: where jobs stand, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from almanac.cli import live, tables
from almanac.cli.connect import connected, output_option

if TYPE_CHECKING:
    from almanac.client import Client

EPILOG = """\b
Examples:
  almanac status ledger                      where it stands, and why
  almanac status ledger --watch              until its run is over
  almanac status ledger -o wide              with its conditions and former runs
  almanac status ledger -o json | jq .status.phase
"""


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-w", "--watch", is_flag=True, help="Show every change of one job until its run is over.")
@output_option()
@connected
def status(client: Client, names: tuple[str, ...], watch: bool, output: str) -> None:
    """Show where jobs stand: phase, reason, progress, run and result."""
    if watch and len(names) > 1:
        raise click.UsageError("--watch shows one job: name one")
    if watch:
        _watch(client, names[0], output)
        return
    records = [client.status(name) for name in names]
    if output in ("yaml", "json"):
        tables.echo(records, output)
    else:
        tables.print_detail(records, wide=output == "wide")


def _watch(client: Client, name: str, output: str) -> None:
    """Every change of a job, up to the end of its run; of a job with a schedule, without end."""
    if output in ("yaml", "json"):
        for record in client.watch(name):
            click.echo(tables.documents([record.document], output), nl=False)
            click.echo("---" if output == "yaml" else "", nl=output == "yaml")
            if record.settled and not record.scheduled:
                return
    with live.changes(wide=output == "wide") as show:
        for record in client.watch(name):
            show(record)
            if record.settled and not record.scheduled:
                return
