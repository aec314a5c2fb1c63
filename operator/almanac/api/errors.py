"""What can go wrong with a job, in words that are the same everywhere: exit codes, reasons, one exception, problems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from pydantic import ValidationError


class ExitCode(IntEnum):
    """How the process of a run ends."""

    DONE = 0
    FAILED = 1
    """Something unforeseen."""
    INVALID_JOB = 64
    BAD_DATA = 65
    SOURCE_MISSING = 66
    """The source does not exist or holds no row."""
    UNAVAILABLE = 75
    """Something that the job needs does not answer at the moment."""
    ACCESS_DENIED = 77
    TOO_BIG_FOR_LOCAL = 79
    """The data do not fit into this process: `engine: auto` goes on with a cluster."""
    INTERRUPTED = 130
    """Somebody has stopped the run with Ctrl-C (SIGINT)."""
    TERMINATED = 143
    """The cluster, or the machine, has stopped the run (SIGTERM)."""

    @property
    def worth_a_retry(self) -> bool:
        """Whether the same run may do better another time."""
        return self in (ExitCode.FAILED, ExitCode.UNAVAILABLE, ExitCode.INTERRUPTED, ExitCode.TERMINATED)

    @property
    def final(self) -> bool:
        """Whether the run is over with it: it is done, or would end the same another time."""
        return not self.worth_a_retry


class Reason(StrEnum):
    """Why a run ended as it did: one CamelCase word, as conditions of Kubernetes carry it."""

    COMPLETED = "Completed"
    INVALID_SPEC = "InvalidSpec"
    NOT_INSTALLED = "NotInstalled"
    """The job needs a library that this environment does not have."""
    DATA_ERROR = "DataError"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_EMPTY = "SourceEmpty"
    ACCESS_DENIED = "AccessDenied"
    CREDENTIALS_EXPIRED = "CredentialsExpired"
    """Storage knows the credentials, and their time is up: another attempt begins with those that there are then."""
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    """The database does not answer, or has ended a connection."""
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    STORAGE_FULL = "StorageFull"
    CLUSTER_UNAVAILABLE = "ClusterUnavailable"
    """The cluster that computes the run does not start, or loses its executors again and again."""
    TOO_BIG_FOR_LOCAL = "TooBigForLocal"
    INTERRUPTED = "Interrupted"
    LEARNT_NOTHING = "LearntNothing"
    """The detector tells no rows apart, or does so by chance: nothing is published."""
    INTERNAL_ERROR = "InternalError"

    @property
    def exit_code(self) -> ExitCode:
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Reason.COMPLETED: ExitCode.DONE,
    Reason.INVALID_SPEC: ExitCode.INVALID_JOB,
    Reason.NOT_INSTALLED: ExitCode.INVALID_JOB,
    Reason.DATA_ERROR: ExitCode.BAD_DATA,
    Reason.LEARNT_NOTHING: ExitCode.BAD_DATA,
    Reason.SOURCE_NOT_FOUND: ExitCode.SOURCE_MISSING,
    Reason.SOURCE_EMPTY: ExitCode.SOURCE_MISSING,
    Reason.ACCESS_DENIED: ExitCode.ACCESS_DENIED,
    Reason.SOURCE_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Reason.CREDENTIALS_EXPIRED: ExitCode.UNAVAILABLE,
    Reason.STORAGE_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Reason.STORAGE_FULL: ExitCode.UNAVAILABLE,
    Reason.CLUSTER_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Reason.TOO_BIG_FOR_LOCAL: ExitCode.TOO_BIG_FOR_LOCAL,
    Reason.INTERRUPTED: ExitCode.INTERRUPTED,
    Reason.INTERNAL_ERROR: ExitCode.FAILED,
}


class AlmanacError(Exception):
    """What a person can change: `message` names what is wrong and what to do, commands end with `exit_code`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.FAILED


class JobError(AlmanacError):
    """A job cannot go on and a person can change that: `message` names the field, the value and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return JobError, (self.reason, self.message)  # errors of other processes arrive as they left

    @property
    def exit_code(self) -> ExitCode:
        return self.reason.exit_code


Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a document.

    `location` leads to the field (`("spec", "model", "order", 1)`), or to the parent of a field that is missing. `got`
    is the value that was found, where showing it helps.
    """

    location: Location
    message: str
    got: Any = None
    at_key: bool = False
    """The name of the field is the problem, not its value."""

    @property
    def path(self) -> str:
        """The location as people write it: `spec.model.order[1]`."""
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.location).removeprefix(".")

    def __str__(self) -> str:
        got = "" if self.got is None else f" (got {shorten(self.got)})"
        return f"{self.path}: {self.message}{got}" if self.path else f"{self.message}{got}"


def shorten(value: object, width: int = 60) -> str:
    """`value` as JSON on one line of at most `width` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def problems(error: ValidationError) -> tuple[Problem, ...]:
    """What pydantic found wrong, in the words of someone who writes YAML, in the order of the document's fields."""
    return tuple(_problem(dict(one)) for one in error.errors(include_url=False))


def _problem(one: dict[str, Any]) -> Problem:
    kind, location, value = one["type"], one["loc"], one["input"]
    at_key = bool(location) and location[-1] == "[key]"
    location, value = (location[:-1], None) if at_key else (location, value)
    if kind == "missing":
        missing, parent = location[-1], location[:-1]
        name = f"item {missing + 1}" if isinstance(missing, int) else f"`{missing}`"
        return Problem(parent, f"{name} is missing")
    if kind == "unknown_field":
        return Problem(location, one["msg"], at_key=True)
    message = _WORDS.get(kind, one["msg"]).format(**_plain(one.get("ctx", {})))
    message = (
        message.removeprefix("Value error, ").replace("Input should be", "must be").replace("Input should", "must")
    )
    return Problem(location, message, None if isinstance(value, dict) else value, at_key)


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a string",
    "string_unicode": "must be Unicode text: it holds half of a surrogate pair",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
    "too_long": "must have at most {max_length} items, has {actual_length}",
    "too_short": "must have at least {min_length} items, has {actual_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
}


def _plain(context: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}


def invalid_spec(found: Sequence[Problem]) -> JobError:
    """The problems of one job as the error that refuses it."""
    return JobError(Reason.INVALID_SPEC, "; ".join(map(str, found)))
