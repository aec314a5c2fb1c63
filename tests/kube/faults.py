"""What goes wrong on the way to an API server, on demand: see Fault and Switches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as the log keeps it."""

    method: str
    path: str
    query: dict[str, str]
    agent: str = ""
    watch: bool = False
    token: str = ""
    """Who asks, by the token of the request."""


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests that match: an error, a wait, a hang-up.

    `path` is a regular expression that is searched for in the path, e.g. `r"/jobs$"`. With `late`, the request is
    carried out before it fails, as when an answer is lost. An error 403 without an end is a right that is missing: who
    asks whether a request is allowed (SelfSubjectAccessReview) is told so.
    """

    method: str = ""
    path: str = ""
    status: int = 0
    reason: str = ""
    retry_after: int = 0
    delay: float = 0.0
    reset: bool = False
    late: bool = False
    watches: bool = False
    """Whether it is for watches; they are spared otherwise."""
    agent: str = ""
    """How the `User-Agent` of the requests begins; empty: any."""
    token: str = ""
    """Who sends the requests, by their token; empty: anybody."""
    times: float = 1

    def meets(self, request: Request) -> bool:
        if not self._is_for(request):
            return False
        self.times -= 1
        return True

    def forbids(self, request: Request) -> bool:
        """Whether such a request is refused for good, by lack of a right."""
        return self.status == 403 and self.times == inf and self._is_for(request)

    def _is_for(self, request: Request) -> bool:
        if self.times < 1 or request.watch != self.watches or not request.agent.startswith(self.agent):
            return False
        if self.token not in ("", request.token) or self.method not in ("", request.method):
            return False
        return re.search(self.path, request.path) is not None


@dataclass
class Switches:
    """The state of everything that can go wrong, and the log of what was asked."""

    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    away: bool = False
    muted: bool = False
    generation: int = 0
    """Watches that began in an older one end."""
    compacted: bool = False

    def next(self, request: Request) -> Fault | None:
        self.requests.append(request)
        return next((one for one in self.faults if one.meets(request)), None)

    def forbids(self, request: Request) -> bool:
        """Whether a right is missing that such a request needs."""
        return any(one.forbids(request) for one in self.faults)

    @contextmanager
    def during(self, *faults: Fault) -> Iterator[None]:
        """Faults that end with the block."""
        self.faults.extend(faults)
        try:
            yield
        finally:
            for one in faults:
                self.faults.remove(one)


REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
