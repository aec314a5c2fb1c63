"""What can go wrong between the client and a cluster. Every message says what to do about it."""

from __future__ import annotations

from almanac.api import AlmanacError, ExitCode


class ClientError(AlmanacError):
    """The base of all errors of the client."""


class ConfigError(ClientError):
    """There is no cluster to talk to: no kubeconfig, no such context, or credentials that cannot be had."""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INVALID_JOB


class UnreachableError(ClientError):
    """The API server does not answer, or says that it cannot at the moment."""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.UNAVAILABLE


class AccessDeniedError(ClientError):
    """The API server does not know who asks, or does not allow it."""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.ACCESS_DENIED


class NotFoundError(ClientError):
    """What was named does not exist."""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.SOURCE_MISSING


class NotInstalledError(NotFoundError):
    """The cluster does not know Almanac's kinds."""


class ConflictError(ClientError):
    """Somebody else has a say in the same thing: a job of this name exists, or another manager owns a field."""


class RejectedError(ClientError):
    """The API server does not take the document."""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INVALID_JOB


class WaitTimeoutError(ClientError):
    """What was waited for did not happen in time."""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.UNAVAILABLE


class ExpiredError(ClientError):
    """A watch cannot go on from where it was: read anew, and watch from there."""
