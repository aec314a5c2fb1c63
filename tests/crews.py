"""Crews for tests: this process, and several places within it that hold their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.crew import Held
from almanac_jobs.engines.local import Alone
from almanac_jobs.progress import Progress


def alone(threads: int = 1) -> Alone:
    return Alone(threads, Progress())


class Several:
    """As many places as are asked for; they do nothing together."""

    threads = 1
    memory = 1 << 40

    def __init__(self, size: int) -> None:
        self.size = size

    def deal(self, values: Sequence[Any]) -> Held[Any]:
        assert len(values) == self.size
        return Held(tuple(values))

    def share(self, value: Any) -> Held[Any]:
        return Held((value,) * self.size)

    def each(self, work: Callable[..., Any], *arguments: Any) -> Held[Any]:
        return Held(
            tuple(
                work(*(one.parts[place] if isinstance(one, Held) else one for one in arguments))
                for place in range(self.size)
            )
        )

    def counted(self, work: Callable[..., Any], *arguments: Any) -> Held[Any]:
        return self.each(work, *arguments, lambda done: None)

    def fetch(self, held: Held[Any]) -> list[Any]:
        return list(held.parts)

    def exchange(self, held: Held[Any]) -> Held[Any]:
        return Held(tuple([one[to] for one in held.parts] for to in range(self.size)))

    def together(self, work: Callable[..., Any], *arguments: Any) -> Any:
        raise NotImplementedError

    def cut(self, values: NDArray[Any], seed: int = 0) -> Held[Any]:
        """Values in as many shares, some of which may be empty."""
        at = np.sort(np.random.default_rng(seed).integers(0, len(values) + 1, self.size - 1))
        return Held(tuple(np.split(values, at)))
