"""Order and sums over rows that lie in several places, as exact as if they lay in one: none is gathered.

Rows are sent to where those that they are compared with are (`route`), and what is found there comes back to where they
lie. Numbers of an order are found by counting (`select`): in eight rounds, one for each byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Floats, Ints, Matrix, take
from almanac_jobs.crew import Crew, Held

Codes = NDArray[np.uint64]
Array = TypeVar("Array", bound=NDArray[Any])

_SPLIT = 64
"""Quantiles of each place by which rows are divided, for every place."""


@dataclass(frozen=True, slots=True)
class Routed(Generic[Array]):
    """Rows where those that they are compared with are: `there` are those of every place, in the places' order."""

    crew: Crew
    there: Held[list[Any]]
    destination: Held[Ints] | None

    def ask(self, work: Callable[..., Any]) -> list[Any]:
        """What `work` finds in all rows that are in a place, for each place."""
        return self.crew.fetch(self.crew.each(_whole, self.there, work))

    def each(self, work: Callable[..., Array], *arguments: Any) -> Held[Array]:
        """What `work` makes of each row, an entry a row, back where the rows lie."""
        made = self.crew.each(_pieces_of, self.there, work, *arguments)
        if self.destination is None:
            return self.crew.each(_first, made)
        return self.crew.each(_restored, self.crew.exchange(made), self.destination)


def route(crew: Crew, rows: Held[Any], destination: Held[Ints] | None) -> Routed[Any]:
    """Send rows, a table or an array in each place, to the places that are said for each of them.

    None is for a crew of one, which has all of them.
    """
    if destination is None or crew.size == 1:
        return Routed(crew, crew.each(_alone, rows), None)
    return Routed(crew, crew.exchange(crew.each(_divided, rows, destination, crew.size)), destination)


def by_value(crew: Crew, values: Held[Any]) -> Held[Ints] | None:
    """For each row a place, so that the values of each place are above those of all before; None for a crew of one."""
    if crew.size == 1:
        return None
    some = np.sort(np.concatenate(crew.fetch(crew.each(_some, values, _SPLIT * crew.size))))
    at = np.arange(1, crew.size) * len(some) // crew.size
    return crew.each(_above, values, some[at] if len(some) else some)


def ranks(crew: Crew, values: Held[Floats]) -> Held[Floats]:
    """The rank of each value as a share of all, above 0 and up to 1; equal values share the mean of their ranks."""
    routed = route(crew, values, by_value(crew, values))
    sizes = np.array(routed.ask(len))
    before = crew.deal((np.cumsum(sizes) - sizes).tolist())
    return routed.each(_ranks, before, int(sizes.sum()))


def select(crew: Crew, ordered: Held[Codes], ranks: Ints) -> Codes:
    """Of all codes (`codes`), those of these ranks, of which the first is 0; `ordered` are sorted in each place."""
    found = np.zeros(len(ranks), np.uint64)
    for byte in range(7, -1, -1):
        steps = np.arange(1, 256, dtype=np.uint64) << np.uint64(8 * byte)
        tried = found[:, None] + steps
        below = np.sum(crew.fetch(crew.each(_below, ordered, tried)), axis=0)
        found += (below <= ranks[:, None]).sum(axis=1).astype(np.uint64) << np.uint64(8 * byte)
    return found


def order(values: NDArray[Any]) -> Codes:
    """The `codes` of values, sorted."""
    return np.sort(codes(values))


def codes(values: NDArray[Any]) -> Codes:
    """Numbers in the same order as values, floats of 64 bits or integers; there is no NaN among them."""
    if values.dtype.kind == "i":
        return values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    negative = bits >> np.uint64(63) == 1
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))


def floats(found: Codes) -> Floats:
    """The floats of codes."""
    positive = found >> np.uint64(63) == 1
    return np.where(positive, found & np.uint64((1 << 63) - 1), ~found).view(np.float64)


def integers(found: Codes) -> Ints:
    """The integers of codes."""
    return (found ^ np.uint64(1 << 63)).view(np.int64)


def spread(crew: Crew, values: Held[Floats]) -> float:
    """Their standard deviation; 0 for none."""
    sums = crew.fetch(crew.each(_sum, values))
    count = sum(number for number, _ in sums)
    if not count:
        return 0.0
    squares = crew.fetch(crew.each(_squares, values, sum(total for _, total in sums) / count))
    return float(np.sqrt(sum(squares) / count))


def gathered(crew: Crew, matrix: Held[Matrix], sizes: Sequence[int], rows: Ints) -> Floats32:
    """Some rows, whose numbers over all places ascend, here."""
    return np.concatenate(crew.fetch(crew.each(take, matrix, crew.deal(own(sizes, rows)))))


def own(sizes: Sequence[int], rows: Ints) -> list[Ints]:
    """Numbers of rows over all places, which ascend, as each place numbers its own."""
    ends = np.cumsum(sizes)
    cuts = np.searchsorted(rows, ends)
    return [part - (end - size) for part, end, size in zip(np.split(rows, cuts[:-1]), ends, sizes, strict=True)]


def _some(values: NDArray[Any], count: int) -> NDArray[Any]:
    return np.sort(values)[np.linspace(0, len(values) - 1, min(count, len(values))).astype(np.int64)]


def _above(values: NDArray[Any], cuts: NDArray[Any]) -> Ints:
    return np.searchsorted(cuts, values, side="right")


def _below(ordered: Codes, tried: Codes) -> Ints:
    return np.searchsorted(ordered, tried)


def _sum(values: Floats) -> tuple[int, float]:
    return len(values), float(np.sum(values))


def _squares(values: Floats, mean: float) -> float:
    off = values - mean
    return float(np.sum(off * off))


def _ranks(values: Floats, before: int, count: int) -> Floats:
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = before + np.cumsum(sizes)
    mean: Floats = (last - (sizes - 1) / 2) / count
    return mean[group]


def _alone(rows: Any) -> list[Any]:
    return [rows]


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _divided(rows: Any, destination: Ints, count: int) -> list[Any]:
    return [_taken(rows, np.flatnonzero(destination == at)) for at in range(count)]


def _taken(rows: Any, which: Ints) -> Any:
    return rows.take(pa.array(which)) if isinstance(rows, pa.Table) else rows[which]


def _whole(there: list[Any], work: Callable[..., Any]) -> Any:
    return work(_together(there))


def _pieces_of(there: list[Any], work: Callable[..., Any], *arguments: Any) -> list[Any]:
    made = work(_together(there), *arguments)
    return np.split(made, np.cumsum([len(one) for one in there])[:-1])


def _together(there: list[Any]) -> Any:
    if len(there) == 1:
        return there[0]
    return pa.concat_tables(there) if isinstance(there[0], pa.Table) else np.concatenate(there)


def _restored(back: list[Any], destination: Ints) -> Any:
    made = np.empty((len(destination), *back[0].shape[1:]), back[0].dtype)
    for at, part in enumerate(back):
        made[destination == at] = part
    return made
