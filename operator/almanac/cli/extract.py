"""`almanac extract`: a table or a query of a database as partitioned Parquet, without a manifest."""

from __future__ import annotations

import os
import secrets
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import click
from pydantic import ValidationError

from almanac.api import ExtractJob, JobError, PartitionBy, Reason, invalid_spec, problems
from almanac.api.extract import TABLE
from almanac.cli.run import RUN_ID, Shell, check_installed, new_run_id

EPILOG = """\b
Examples:
  almanac extract --to data/raw/journal_entries postgresql://reader@db.example.com/ledger
  almanac extract --table finance.entries --partition-by month --column date \\
      --to s3://ledger/raw/entries postgresql://reader@db.example.com:26257/ledger?sslmode=verify-full
  almanac extract --query 'SELECT id, amount FROM entries' --key id --to out     as PGHOST, PGUSER ... say
  almanac extract --table entries --watermark updated_at --to out postgresql://db/ledger   only what is new

\b
The password comes from PGPASSWORD, ~/.pgpass or another place that libpq knows; never from the command line.
"""


@click.command(epilog=EPILOG)
@click.argument("url", default="")
@click.option("--table", metavar="NAME", help=f"Table or view, as SQL writes it.  [default: {TABLE}]")
@click.option("--query", metavar="SQL", help="A SELECT, in place of a table.")
@click.option("--to", "uri", metavar="URI", help=f"Folder of the data set.  [default: data/raw/{TABLE}]")
@click.option("--columns", metavar="NAMES", help="Columns to read: id,date,amount.  [default: all]")
@click.option("--key", metavar="NAMES", help="Columns that tell rows apart: id.  [default: the primary key]")
@click.option("--filter", "condition", metavar="SQL", help="Rows to read: \"status = 'posted'\".  [default: all]")
@click.option("--partition-by", type=click.Choice([one.value for one in PartitionBy]), default="none", help="Folders.")
@click.option("--column", metavar="NAME", help="Column that folders are made of.")
@click.option("--buckets", type=int, metavar="NUMBER", help="Folders of --partition-by entity.  [default: 16]")
@click.option("--watermark", metavar="NAME", help="Column that grows with every change: read what is new, by it.")
@click.option("--connections", type=int, metavar="NUMBER", help="Connections that read at a time.  [default: cores]")
@click.option("--run-id", metavar="ID", help="Name of the run; one that was stopped goes on.  [default: from time]")
@click.option("--output", type=click.Choice(["text", "json", "yaml"]), default="text", help="A summary, or the report.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--debug", is_flag=True, envvar="ALMANAC_DEBUG", help="Show the traceback of a failure.")
def extract(
    url: str, uri: str | None, run_id: str | None, output: str, quiet: bool, debug: bool, **source: Any
) -> None:
    """Write a table of PostgreSQL or CockroachDB as partitioned Parquet: one consistent snapshot, read in parallel.

    URL is that of the database, without a password. The run is that of an ExtractJob: `almanac run` and a cluster do
    the same with a manifest.
    """
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise click.BadParameter("lower-case letters, digits and - only, at most 63", param_hint="--run-id")
    now = datetime.now(UTC)
    shell = Shell(run_id or new_run_id(now, secrets.token_hex(3)), now, output, quiet, debug, os.environ)
    try:
        made = job(url, uri, source)
        check_installed()
    except JobError as error:
        shell.fail(error)
        sys.exit(error.exit_code)
    shell.run(made)


def job(url: str, uri: str | None, options: dict[str, Any]) -> ExtractJob:
    """The job that the options say.

    Raises:
        JobError: InvalidSpec.
    """
    source: dict[str, Any] = {"connection": connection(url)}
    source |= {name: options[name] for name in ("table", "query", "connections") if options[name]}
    source |= {name: options[name].split(",") for name in ("columns", "key") if options[name]}
    source |= {"filter": options["condition"]} if options["condition"] else {}
    source |= {"watermark": {"column": options["watermark"]}} if options["watermark"] else {}
    partition = {"by": options["partition_by"], "column": options["column"], "buckets": options["buckets"]}
    spec = {"source": source, "partition": {name: value for name, value in partition.items() if value}}
    try:
        return ExtractJob.parse(
            {"metadata": {"name": "extract"}, "spec": {**spec, "output": {"uri": uri} if uri else {}}}
        )
    except ValidationError as error:
        raise invalid_spec(problems(error)) from None


def connection(url: str) -> dict[str, Any]:
    """The URL of a database as fields of a job: none of them has a password.

    Raises:
        JobError: InvalidSpec for a URL that holds one, or is none of a database.
    """
    if not url:
        return {}
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise JobError(
            Reason.INVALID_SPEC, "URL: it cannot be read: write postgresql://user@host:5432/database"
        ) from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise JobError(Reason.INVALID_SPEC, "URL: must start with postgresql://, e.g. postgresql://user@host/database")
    told = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.password is not None or "password" in told:
        words = "URL: must not hold the password, which others on this machine would see: put it into PGPASSWORD"
        raise JobError(Reason.INVALID_SPEC, f"{words}, or into ~/.pgpass")
    unknown = sorted(set(told) - {"sslmode"})
    if unknown:
        name = unknown[0]
        raise JobError(
            Reason.INVALID_SPEC, f"URL: `{name}` is not read: set libpq's environment variable of it instead"
        )
    found = {
        "host": parts.hostname and unquote(parts.hostname),
        "port": port,
        "database": unquote(parts.path.removeprefix("/")),
        "user": parts.username and unquote(parts.username),
        **told,
    }
    return {name: value for name, value in found.items() if value}
