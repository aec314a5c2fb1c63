"""`almanac operator`: the process that makes jobs run. No module may be named as the command is: see docs."""

from __future__ import annotations

import dataclasses
import os
import socket

import click

from almanac import kubeconfig, settings
from almanac.api import JobError, Reason
from almanac.api.errors import ExitCode


@click.command()
@click.option(
    "-n", "--namespace", "namespaces", multiple=True, help="Watch this namespace; repeat it for more. None: all."
)
def operator(namespaces: tuple[str, ...]) -> None:
    """Watch jobs, run them, and write what happens into their status.

    Settings are environment variables, ALMANAC_IMAGE and others: docs/operator.md lists them.
    """
    try:
        from almanac import process
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'almanac[operator]' brings what the operator needs"
        raise JobError(Reason.NOT_INSTALLED, message) from error
    try:
        given = settings.from_environment(os.environ)
        access = kubeconfig.find(os.environ)
    except (settings.SettingsError, kubeconfig.AccessError) as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        raise click.exceptions.Exit(ExitCode.INVALID_JOB) from error
    given = dataclasses.replace(
        given,
        namespaces=tuple(dict.fromkeys(namespaces)) or given.namespaces,
        identity=given.identity or socket.gethostname(),
    )
    process.log_to_stderr(given.log_level)
    process.start(process.run(access, given))
