from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from almanac.workqueue import FIRST_DELAY, LONGEST_DELAY, WorkQueue, backoff


class Fixed:
    """A chance that always gives the largest number."""

    def uniform(self, low: float, high: float) -> float:
        return high


def work_on(
    work: Callable[[str], Awaitable[float | None]], play: Callable[[WorkQueue[str]], Awaitable[None]], workers: int = 3
) -> None:
    async def main() -> None:
        queue = WorkQueue(work, workers)
        queue.start()
        await play(queue)
        await queue.drain(1)

    asyncio.run(main())


def test_a_key_that_is_added_many_times_is_worked_on_once() -> None:
    done: Counter[str] = Counter()

    async def work(key: str) -> None:
        done[key] += 1

    async def play(queue: WorkQueue[str]) -> None:
        for _ in range(5):
            queue.add("a")
            queue.add("b")
        assert queue.depth == 2
        queue.open()
        await asyncio.sleep(0.01)

    work_on(work, play)
    assert done == {"a": 1, "b": 1}


def test_nobody_works_on_a_key_beside_somebody_else_and_a_change_in_between_is_seen() -> None:
    order: list[str] = []

    async def work(key: str) -> None:
        order.append("begin")
        await asyncio.sleep(0.01)
        order.append("end")

    async def play(queue: WorkQueue[str]) -> None:
        queue.open()
        queue.add("a")
        await asyncio.sleep(0.005)
        queue.add("a")
        queue.add("a")
        await asyncio.sleep(0.05)

    work_on(work, play)
    assert order == ["begin", "end"] * 2


def test_nothing_is_done_until_the_queue_is_open_and_after_it_is_shut() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        done.append(key)

    async def play(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(0.01)
        assert done == []
        queue.open()
        await asyncio.sleep(0.01)
        queue.shut()
        queue.add("b")
        await asyncio.sleep(0.01)

    work_on(work, play)
    assert done == ["a"]


def test_a_failure_is_tried_again_and_what_work_returns_says_when_next() -> None:
    results: list[float | Exception | None] = [ValueError("no"), 0.0, None]
    done: list[str] = []

    async def work(key: str) -> float | None:
        done.append(key)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    async def play(queue: WorkQueue[str]) -> None:
        queue.open()
        queue.add("a")
        async with asyncio.timeout(10):
            while results:
                await asyncio.sleep(0.01)

    work_on(work, play)
    assert len(done) == 3


def test_an_earlier_time_wins() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        done.append(key)

    async def play(queue: WorkQueue[str]) -> None:
        queue.open()
        queue.add("a", 1000)
        queue.add("b", 1000)
        queue.add("a")
        await asyncio.sleep(0.01)

    work_on(work, play)
    assert done == ["a"]


def test_back_off_doubles_up_to_a_limit() -> None:
    waits = [backoff(failures, Fixed()) for failures in range(1, 12)]  # type: ignore[arg-type]
    assert waits[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert waits[-1] == LONGEST_DELAY


def test_it_knows_how_long_the_first_key_has_waited() -> None:
    ages: list[float] = []

    async def work(key: str) -> None:
        ages.append(0.0)

    async def play(queue: WorkQueue[str]) -> None:
        assert queue.age == 0.0
        queue.add("later", 60)
        assert queue.age == 0.0
        queue.add("now")
        await asyncio.sleep(0.05)
        assert queue.age > 0
        queue.open()
        while not ages:
            await asyncio.sleep(0.01)
        assert queue.age == 0.0

    work_on(work, play)
