"""Waiting for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(found: Callable[[], T], what: str, seconds: float = 60) -> T:
    """The first true result of a function; fails with `what` when there is none in time."""
    end = time.monotonic() + seconds
    pause = 0.002
    while not (result := found()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    return result
