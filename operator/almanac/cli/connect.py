"""What the commands that talk to a cluster have in common: which cluster, which namespace, and a client of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from almanac.api import JobError, Reason

if TYPE_CHECKING:
    from almanac.client import Client

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

FORMATS = ("table", "wide", "yaml", "json")

_OPTIONS = (
    click.option("-n", "--namespace", metavar="NAME", help="Namespace of the job.  [default: that of the context]"),
    click.option("--context", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"),
    click.option("--kubeconfig", metavar="FILE", help="Which kubeconfig.  [default: $KUBECONFIG, ~/.kube/config]"),
)


def connected(
    function: Callable[Concatenate[Client, Arguments], Returned],
) -> Callable[..., Returned]:
    """Give a command the options that say which cluster, and a client of it as its first argument."""

    @functools.wraps(function)
    def command(
        *arguments: Any, namespace: str | None, context: str | None, kubeconfig: str | None, **options: Any
    ) -> Returned:
        try:
            from almanac.client import Client
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed: pip install 'almanac[client]' brings what talks to a cluster"
            raise JobError(Reason.NOT_INSTALLED, message) from error
        with Client(kubeconfig=kubeconfig, context=context, namespace=namespace) as client:
            return function(client, *arguments, **options)

    wrapped: Callable[..., Returned] = command
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def output_option(*more: str) -> Callable[[Callable[Arguments, Returned]], Callable[Arguments, Returned]]:
    """The option -o."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([*FORMATS, *more]),
        default="table",
        show_default=True,
        help="For people (table, or wide with more) or for programs.",
    )
