"""The command line. Each command lives in a module of its own, which is imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from almanac.api.errors import AlmanacError, ExitCode

COMMANDS = {
    "run": "Run a job on this machine.",
    "extract": "Write a table of a database as Parquet.",
    "validate": "Check job files and report every problem at once.",
    "show": "Draw the forecast of one entity, or tell its anomalies.",
    "render": "Print what the operator would create for a job.",
    "submit": "Bring jobs into a cluster, and watch them.",
    "status": "Show where jobs in a cluster stand, and why.",
    "results": "Show where the results of a job are.",
    "cancel": "Stop jobs, let them go on, or delete them.",
    "list": "List the jobs in a cluster.",
    "logs": "Print what the driver of a job has written.",
    "crds": "Print the CustomResourceDefinitions, or the reference of their fields.",
    "operator": "Run the operator: watch a cluster's jobs, and make them happen.",
}

MODULES = {"operator": "operate"}
"""Modules of commands whose name no module may bear: `operator` is one of the standard library's."""

EPILOG = """\b
Examples:
  almanac validate -f jobs/             every job file below a folder
  almanac run -f job.yaml               what a cluster would run, here
  almanac run -f job.yaml --sample      one entity, to try it out
  almanac submit -f job.yaml --wait     bring it into a cluster, and watch it
  almanac crds | kubectl apply -f -     make Kubernetes know the kinds

\b
Exit codes:
  0 done   64 invalid job   65 bad data   66 source missing or empty   75 try again later
  77 access denied   79 too big for this machine   130 interrupted   2 wrong usage
"""


class Commands(click.Group):
    """Commands by name, each under its own name in the module `almanac.cli.<name>`, or the one of `MODULES`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"almanac.cli.{MODULES.get(cmd_name, cmd_name)}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AlmanacError as error:
            click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(ExitCode.INTERRUPTED)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="almanac", message="almanac %(version)s")
def main() -> None:
    """Forecasts and anomaly detection over a data lake: the same job file on a laptop and on Kubernetes."""


def plugin() -> None:
    """The command line as kubectl calls it: `kubectl almanac ...`."""
    main(prog_name="kubectl almanac")
