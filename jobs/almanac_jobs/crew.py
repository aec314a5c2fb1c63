"""Work on data that lie in several places, wherever these are: in this process, or each on a worker of a cluster.

What a place has made stays there (`Held`) and later work at the same place takes it. Work is a function that can be
pickled, does not change what it is given, and gives the same whenever it is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Reach = Callable[[int], None]
"""Called with how much of its own a place has done; raises where the run is over."""


@dataclass(frozen=True, slots=True)
class Held(Generic[T_co]):
    """A value in each place. `parts` are for the crew alone: the values, or what stands for them."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """What work that all places do together has besides: `tick` counts a step of all, `keep` keeps what there is so
    far, so that not all is lost with a place, and `kept` is what an attempt before has kept."""

    tick: Callable[[], None]
    keep: Callable[[bytes], None]
    kept: bytes | None


class Crew(Protocol):
    """Those who do the work. What they raise arrives as it is, at the latest with `fetch`."""

    @property
    def size(self) -> int:
        """Number of places."""

    @property
    def threads(self) -> int:
        """Threads that work at one place is to use."""

    @property
    def memory(self) -> int:
        """Bytes of memory that each place has."""

    def deal(self, values: Sequence[T]) -> Held[T]:
        """Give each place a value of its own."""

    def share(self, value: T) -> Held[T]:
        """Give all places the same value."""

    def each(self, work: Callable[..., T], *arguments: Any) -> Held[T]:
        """Have work done at every place; where an argument is `Held`, on what that place holds."""

    def counted(self, work: Callable[..., T], *arguments: Any) -> Held[T]:
        """As `each`, with one more argument, a `Reach`: the progress of the run counts what all places say."""

    def fetch(self, held: Held[T]) -> list[T]:
        """What the places hold, in their order."""

    def exchange(self, held: Held[Sequence[T]]) -> Held[list[T]]:
        """Each place holds a sequence with one value for every place; afterwards it holds those that are for it."""

    def together(self, work: Callable[..., T], *arguments: Any) -> T:
        """Have work done at all places at the same time, with XGBoost's collective between them where they are
        several, and one more argument, a `Link`. Gives what the first place makes; all make the same."""
