"""`almanac cancel`: stop jobs, let them go on again, or delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from almanac.cli.connect import connected

if TYPE_CHECKING:
    from almanac.client import Client

EPILOG = """\b
Examples:
  almanac cancel ledger             stop its run, and start no other
  almanac cancel ledger --undo      let it go on
  almanac cancel ledger --delete    delete the job and its pods; results stay where they are
"""


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--undo", is_flag=True, help="Let jobs go on that were cancelled.")
@click.option("--delete", is_flag=True, help="Delete the jobs and their pods. Results stay.")
@connected
def cancel(client: Client, names: tuple[str, ...], undo: bool, delete: bool) -> None:
    """Stop the runs of jobs by setting spec.suspend: the jobs stay, and start no other run.

    A job that has finished and has no schedule is left as it is.
    """
    if undo and delete:
        raise click.UsageError("--undo and --delete contradict each other")
    for name in names:
        record = client.resume(name) if undo else client.cancel(name, delete=delete)
        if delete:
            done = "deleted"
        elif undo:
            done = "goes on"
        elif record.suspended:
            done = "suspended"
        else:
            done = f"left as it is: its run is over ({record.phase})"
        click.echo(f"{record.reference} {done}")
