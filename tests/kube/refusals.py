"""What the API answers when it does not do what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of an object."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class Refusal(Exception):  # noqa: N818 - an answer, not a defect
    """A request that fails, as the Status object of the API tells it."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        problems: tuple[Problem, ...] = (),
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.problems = code, reason, message, problems
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        """The body of the answer, and the object of a watch's ERROR event."""
        details = dict(self.details)
        if self.problems:
            details["causes"] = [
                {"reason": one.reason, "message": one.message, "field": one.field} for one in self.problems
            ]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
            **({"details": details} if details else {}),
        }


def not_found(group_resource: str, name: str) -> Refusal:
    plural, _, group = group_resource.partition(".")
    details = {"name": name, "group": group, "kind": plural}
    return Refusal(404, "NotFound", f'{group_resource} "{name}" not found', details=details)


def unknown_path() -> Refusal:
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def exists(group_resource: str, name: str) -> Refusal:
    return Refusal(409, "AlreadyExists", f'{group_resource} "{name}" already exists')


def stale(group_resource: str, name: str) -> Refusal:
    return conflict(
        group_resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def conflict(group_resource: str, name: str, why: str) -> Refusal:
    return Refusal(409, "Conflict", f'Operation cannot be fulfilled on {group_resource} "{name}": {why}')


def invalid(group_kind: str, name: str, problems: list[Problem]) -> Refusal:
    """`group_kind` is `Job.batch`, or `Pod` in the core group."""
    told = [f"{one.field}: {one.message}" for one in problems]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    kind, _, group = group_kind.partition(".")
    details = {"name": name, "group": group, "kind": kind}
    return Refusal(422, "Invalid", f'{group_kind} "{name}" is invalid: {text}', tuple(problems), details)


def forbidden(group_resource: str, name: str, why: str, problems: tuple[Problem, ...] = ()) -> Refusal:
    return Refusal(403, "Forbidden", f'{group_resource} "{name}" is forbidden: {why}', problems)


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def expired(message: str) -> Refusal:
    return Refusal(410, "Expired", message)
