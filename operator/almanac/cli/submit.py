"""`almanac submit`: bring job files into a cluster, and see what becomes of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from almanac.api import AlmanacError, ExitCode
from almanac.cli import live, tables
from almanac.cli.connect import FORMATS, connected
from almanac.cli.validate import check
from almanac.documents import Document

if TYPE_CHECKING:
    from almanac.client import Client, JobRecord

EPILOG = """\b
Examples:
  almanac submit -f job.yaml                           create the job, or change it
  almanac submit -f job.yaml --wait                    and watch it until its run is over
  almanac submit -f jobs/ -n finance --dry-run=server  have the cluster check every job of a folder
  almanac submit -f job.yaml --set spec.horizon=14     with another horizon
  kustomize build . | almanac submit -f -              jobs from standard input

\b
With --wait it ends as `almanac run` would: 0 succeeded, 65 bad data, 66 source missing or empty,
77 access denied, 1 another failure; 75 not over in time (--timeout), or suspended.
"""


@click.command(epilog=EPILOG)
@click.option("-f", "--filename", "paths", multiple=True, required=True, help="File, folder, or - (repeatable).")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Set a field first: spec.horizon=14.")
@click.option("--create", is_flag=True, help="Create only: refuse a job that exists already.")
@click.option("--force-conflicts", "force", is_flag=True, help="Take over fields that others manage.")
@click.option("--dry-run", type=click.Choice(["server"]), help="Have the cluster check the jobs, and keep nothing.")
@click.option("-w", "--wait", is_flag=True, help="Watch each job until its run is over.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Wait no longer.")
@click.option("-o", "--output", type=click.Choice(FORMATS), help="Print the jobs as the cluster has them.")
@connected
def submit(
    client: Client,
    paths: tuple[str, ...],
    overrides: tuple[str, ...],
    create: bool,
    force: bool,
    dry_run: str | None,
    wait: bool,
    timeout: float | None,
    output: str | None,
) -> None:
    """Bring jobs into a cluster: create them, or change those that exist (server-side apply).

    All files are checked first, as by `almanac validate`: if one job is invalid, none is submitted. A job whose spec
    has changed runs again; one that says what it said before does not.
    """
    how = {"create": create, "force": force, "dry_run": dry_run is not None}
    code, records = ExitCode.DONE, list[Any]()
    for document in _valid(paths, overrides):
        try:
            records.append(_submit(client, document, how, quiet=output is not None))
        except AlmanacError as error:
            if error.exit_code in (ExitCode.UNAVAILABLE, ExitCode.ACCESS_DENIED, ExitCode.SOURCE_MISSING):
                raise
            click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
            code = code or error.exit_code
    if wait and not dry_run:
        records = [_wait(client, record, timeout) for record in records]
        code = next((one for one in (code, *(record.exit_code for record in records)) if one), ExitCode.DONE)
    if output:
        tables.echo(records, output)
    sys.exit(code)


def _valid(paths: tuple[str, ...], overrides: tuple[str, ...]) -> tuple[Document, ...]:
    """The jobs of all files; ends the command if one of them is invalid."""
    outcome = check(paths, overrides)
    for document in outcome.ignored:
        click.secho(f"{document.file}:{document.line}: ignored: {document.foreign}", dim=True, err=True)
    for finding in outcome.findings:
        click.echo(str(finding), err=True)
    for error in outcome.unreadable:
        click.secho(error.message, fg="red", err=True)
    if outcome.exit_code:
        click.secho("✗ nothing was submitted", fg="red", err=True)
        sys.exit(outcome.exit_code)
    if not outcome.jobs:
        click.secho("✗ there is no job in these files", fg="red", err=True)
        sys.exit(ExitCode.SOURCE_MISSING)
    return outcome.jobs


def _submit(client: Client, document: Document, how: dict[str, bool], *, quiet: bool) -> JobRecord:
    from almanac.client import RejectedError

    namespace = click.get_current_context().params.get("namespace")
    try:
        submission = client.submit(document.value, namespace=namespace, **how)
    except RejectedError as error:
        raise RejectedError(f"{document.file}:{document.line}: {error}") from error
    record, dry = submission.record, " (dry run: nothing is kept)" if how["dry_run"] else ""
    if not quiet:
        click.echo(f"{record.reference} {submission.change} in namespace {record.namespace}{dry}")
    if submission.change == "unchanged" and record.finished and not quiet:
        nonce = record.spec.get("restartNonce", 0)
        again = f"with another spec.restartNonce than {nonce} in its file it runs again"
        click.secho(f"{record.name} has run with this spec: {again}", dim=True, err=True)
    if record.suspended:
        click.secho(
            f"{record.name} is suspended: `almanac cancel --undo {record.reference.typed}` lets it go on",
            dim=True,
            err=True,
        )
    return record


def _wait(client: Client, record: JobRecord, timeout: float | None) -> JobRecord:
    try:
        with live.changes(err=True) as show:
            return client.wait(str(record.reference), namespace=record.namespace, timeout=timeout, on_change=show)
    except KeyboardInterrupt:
        click.echo(f"{record.name} goes on: `almanac status {record.reference.typed} --watch` shows it", err=True)
        raise
