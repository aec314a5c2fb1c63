"""`almanac list`: the jobs of a namespace, or of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from almanac.cli import tables
from almanac.cli.connect import connected, output_option

if TYPE_CHECKING:
    from almanac.client import Client

EPILOG = """\b
Examples:
  almanac list                          the jobs of the present namespace
  almanac list -A -o wide               of all namespaces, with workers, runs and results
  almanac list -l team=finance          those with a label
  almanac list -o json | jq -r '.items[] | select(.status.phase == "Failed") | .metadata.name'
"""


@click.command(epilog=EPILOG)
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of every namespace.")
@click.option(
    "-l", "--selector", default="", metavar="LABELS", help="Only jobs with these labels: team=finance,env!=dev."
)
@output_option()
@connected
def list(client: Client, all_namespaces: bool, selector: str, output: str) -> None:  # noqa: A001 - the command's name
    """List jobs with their phase, reason, engine, progress, entities and score."""
    records = client.list(all_namespaces=all_namespaces, selector=selector)
    if not records and output in ("table", "wide"):
        where = "any namespace" if all_namespaces else f"namespace {client.namespace}"
        click.echo(f"There are no jobs{' with these labels' if selector else ''} in {where}.", err=True)
        return
    tables.echo(records, output, namespaces=all_namespaces, as_list=True)
