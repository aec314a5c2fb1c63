"""`almanac render`: what the operator would create for a job, without a cluster."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import click

from almanac.api import JobError, Reason
from almanac.cli import tables
from almanac.documents import Document, load_documents
from almanac.render import START, UID
from almanac.render import render as rendered
from almanac.settings import Settings, SettingsError, from_environment

EPILOG = """\b
Examples:
  almanac render -f job.yaml                                the objects of its first run, as YAML
  almanac render -f job.yaml | kubectl apply --dry-run=server -f -
  almanac render -f job.yaml -o json | jq '.items[].kind'
  ALMANAC_IMAGE=registry.example.com/almanac:1.4 almanac render -f job.yaml
"""


@click.command(epilog=EPILOG)
@click.option("-f", "--filename", "paths", multiple=True, required=True, help="File, folder, or - (repeatable).")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Set a field first: spec.horizon=14.")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of the jobs.  [default: their own, else default]")
@click.option("--uid", default=UID, metavar="UID", help="uid of the job's object.  [default: zeros]")
@click.option(
    "--start", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), help="When the run begins, in UTC.  [default: 2000]"
)
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Format.")
def render(
    paths: tuple[str, ...],
    overrides: tuple[str, ...],
    namespace: str | None,
    uid: str,
    start: datetime | None,
    output: str,
) -> None:
    """Print exactly what the operator would create for jobs, without a cluster: the same for the same file.

    Names and labels follow from the uid that a cluster gives to the job, and from when the run begins: without --uid
    and --start, something stands in for them. The operator's settings (ALMANAC_IMAGE ...) come from the environment.
    """
    settings, begins = _settings(), start.replace(tzinfo=UTC) if start else START
    made: list[dict[str, Any]] = []
    for document in _jobs(paths, overrides):
        document.parse()
        made += rendered(document.value, namespace=namespace, settings=settings, uid=uid, start=begins)
    click.echo(tables.documents(made, output), nl=False)


def _jobs(paths: tuple[str, ...], overrides: tuple[str, ...]) -> list[Document]:
    found = [document.override(overrides) for document in load_documents(paths) if not document.foreign]
    if not found:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{', '.join(paths)}: there is no job of Almanac's")
    return found


def _settings() -> Settings:
    try:
        return from_environment(os.environ)
    except SettingsError as error:
        raise JobError(Reason.INVALID_SPEC, str(error)) from error
