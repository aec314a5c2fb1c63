"""What storage does wrong, and what becomes of a run, whoever computes it."""

from __future__ import annotations

from almanac.api import Reason
from s3 import Fault

PASSES: dict[str, tuple[str, Fault]] = {
    "slow-down": ("The store is overloaded (503 SlowDown)", Fault(status=503, times=2)),
    "error": ("The store fails (500)", Fault(status=500, code="InternalError", times=2)),
    "reset": ("The connection breaks", Fault(reset=True, times=2)),
    "stall": ("The store takes a request, and says nothing", Fault(delay=3.0, times=1)),
    "half": ("Half an object arrives", Fault(truncate=100, times=1)),
}
"""What passes by itself."""
LASTS: dict[str, tuple[str, Fault, Reason]] = {
    "overloaded": ("The store stays overloaded (503)", Fault(status=503), Reason.STORAGE_UNAVAILABLE),
    "cut-off": ("The store hangs up again and again", Fault(reset=True), Reason.STORAGE_UNAVAILABLE),
    "denied": (
        "Permission is taken away (403 AccessDenied)",
        Fault(status=403, code="AccessDenied"),
        Reason.ACCESS_DENIED,
    ),
    "expired": (
        "The credentials expire (ExpiredToken)",
        Fault(status=400, code="ExpiredToken"),
        Reason.CREDENTIALS_EXPIRED,
    ),
    "skewed": (
        "The machine's clock is off (RequestTimeTooSkewed)",
        Fault(status=403, code="RequestTimeTooSkewed"),
        Reason.ACCESS_DENIED,
    ),
}
"""What does not."""
FULL = ("The store is full (507)", Fault(status=507, code="InsufficientStorage"), Reason.STORAGE_FULL)
GONE = ("The bucket is deleted", Fault(status=404, code="NoSuchBucket"), Reason.INVALID_SPEC)
KEPT = "earlier results are as they were. Tried again once it is over, the run has the same bytes as any other."


def ends(reason: Reason) -> str:
    """How a run ends, for the fault matrix."""
    return f"{reason}, {'tried again' if reason.exit_code.worth_a_retry else 'not tried again by itself'}; {KEPT}"
