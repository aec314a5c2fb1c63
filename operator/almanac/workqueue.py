"""A queue of keys that are worked on one at a time each: what a controller's reconciles wait in.

A key that is added many times before its turn is worked on once. One that is added while it is being worked on is
worked on again. Knows nothing of what keys stand for.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

Key = TypeVar("Key")

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
"""Seconds to wait after a first failure; twice as long after each that follows."""
LONGEST_DELAY = 60.0


def backoff(failures: int, random_: random.Random) -> float:
    """Seconds to wait after so many failures in a row: between half and all of a time that doubles."""
    longest: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    return longest * random_.uniform(0.5, 1.0)


class WorkQueue(Generic[Key]):
    """Keys in the order that they are due. `work` returns the seconds until a key is due again, or None."""

    def __init__(self, work: Callable[[Key], Awaitable[float | None]], workers: int) -> None:
        self._work = work
        self._count = workers
        self._random = random.Random()  # noqa: S311 - spreads load, hides nothing
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = 0
        self._busy: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False

    def start(self) -> None:
        """Make the workers. They wait until the queue is opened."""
        self._tasks = [asyncio.create_task(self._worker(), name=f"worker {one}") for one in range(self._count)]

    def open(self) -> None:
        """Let workers take keys."""
        self._open = True
        self._wake.set()

    def shut(self) -> None:
        """Let workers take no more keys. What they are at goes on."""
        self._open = False

    async def drain(self, seconds: float) -> None:
        """Shut the queue, and wait for what workers are at; after `seconds` that is cancelled."""
        self.shut()
        end = time.monotonic() + seconds
        while self._busy and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Have a key worked on after a delay, or earlier if it is due earlier already."""
        when = time.monotonic() + delay
        if key in self._due and self._due[key] <= when:
            return
        self._due[key] = when
        self._push(key, when)

    def forget(self, key: Key) -> None:
        """Drop what is planned for a key, and what is known of it."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    @property
    def depth(self) -> int:
        """Keys that are due and wait."""
        now = time.monotonic()
        return sum(1 for when in self._due.values() if when <= now)

    @property
    def age(self) -> float:
        """Seconds for which the first key that is due has waited; 0 where none is due."""
        return max(0.0, time.monotonic() - min(self._due.values(), default=float("inf")))

    @property
    def longest(self) -> float:
        """Seconds for which a key has been worked on, at most."""
        return time.monotonic() - min(self._busy.values()) if self._busy else 0.0

    def _push(self, key: Key, when: float) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, key))
        self._wake.set()

    async def _worker(self) -> None:
        while True:
            key = await self._next()
            self._busy[key] = time.monotonic()
            try:
                delay = await self._work(key)
                self._failures.pop(key, None)
            except Exception as error:
                delay = self._failed(key, error)
            finally:
                del self._busy[key]
                self._wake.set()
            if delay is not None:
                self.add(key, delay)

    def _failed(self, key: Key, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(backoff(failures, self._random), getattr(error, "retry_after", None) or 0.0)
        level = logging.ERROR if getattr(error, "code", None) is None else logging.WARNING
        log.log(level, "%s: %s; again in %.1f s", key, error, delay, exc_info=level == logging.ERROR)
        return delay

    async def _next(self) -> Key:
        """The next key that is due and that nobody is at."""
        while True:
            wait = None
            if self._open:
                waiting: list[tuple[float, int, Key]] = []
                found, wait = self._pop(waiting)
                for entry in waiting:
                    heapq.heappush(self._heap, entry)
                if found is not None:
                    return found[0]
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _pop(self, waiting: list[tuple[float, int, Key]]) -> tuple[tuple[Key] | None, float | None]:
        now = time.monotonic()
        while self._heap:
            entry = when, _, key = self._heap[0]
            if self._due.get(key) != when:  # an older entry of a key that is due earlier, or done
                heapq.heappop(self._heap)
            elif when > now:
                return None, when - now
            else:
                heapq.heappop(self._heap)
                if key not in self._busy:
                    del self._due[key]
                    return (key,), None
                waiting.append(entry)
        return None, None
