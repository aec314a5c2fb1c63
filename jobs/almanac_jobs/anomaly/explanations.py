"""Why rows are flagged: the features with the largest contributions, for each row and for each entity. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RAISES, LOWERS = "raises", "lowers"


@dataclass(frozen=True, slots=True)
class Reasons:
    """The `top` features of each of n rows, the largest contribution first.

    `feature` are numbers of features, n x top; `contribution` what each adds to the margin; `value` what the rows have
    there, as text (None: nothing).
    """

    names: tuple[str, ...]
    feature: Ints
    contribution: Floats
    value: tuple[tuple[str | None, ...], ...]

    def take(self, rows: Ints) -> Reasons:
        """Those of some rows."""
        value = tuple(self.value[at] for at in rows.tolist())
        return Reasons(self.names, self.feature[rows], self.contribution[rows], value)

    @classmethod
    def concat(cls, several: Sequence[Reasons]) -> Reasons:
        """Those of rows that follow one another."""
        feature, contribution = (
            np.concatenate([getattr(one, name) for one in several]) for name in ("feature", "contribution")
        )
        return cls(several[0].names, feature, contribution, tuple(value for one in several for value in one.value))

    def of_row(self, row: int) -> list[dict[str, Any]]:
        """The reasons of a row as JSON."""
        return [
            {"feature": self.names[at], "value": value, "contribution": _round(size), "direction": direction(size)}
            for at, size, value in zip(
                self.feature[row].tolist(), self.contribution[row].tolist(), self.value[row], strict=True
            )
        ]


def reasons(names: Sequence[str], values: Sequence[Sequence[str | None]], contributions: Floats, top: int) -> Reasons:
    """The reasons of rows. `values` has a sequence a feature; `contributions` a column a feature and one for all."""
    own = contributions[:, : len(names)]
    order = np.argsort(-np.abs(own), axis=1, kind="stable")[:, :top]
    shown = tuple(tuple(values[at][row] for at in order[row].tolist()) for row in range(len(order)))
    return Reasons(tuple(names), order, np.take_along_axis(own, order, axis=1), shown)


def table(keys: pa.Table, scores: Floats, told: Reasons) -> pa.Table:
    """One row a flagged row and reason: the columns of `keys`, score, rank, feature, value, contribution, direction."""
    rows, top = told.feature.shape
    which = np.repeat(np.arange(rows), top)
    sizes = told.contribution.reshape(-1)
    columns = {name: keys.column(name).take(pa.array(which)) for name in keys.column_names}
    return pa.table(
        {
            **columns,
            "score": pa.array(scores[which]),
            "rank": pa.array(np.tile(np.arange(1, top + 1, dtype=np.int32), rows)),
            "feature": pa.array(np.array(told.names, dtype=object)[told.feature.reshape(-1)], pa.string()),
            "value": pa.array([one for row in told.value for one in row], pa.string()),
            "contribution": pa.array(sizes),
            "direction": pa.array(np.where(sizes < 0, LOWERS, RAISES).astype(object), pa.string()),
        }
    )


def of_entity(names: Sequence[str], contributions: Floats, scores: Floats, top: int) -> list[dict[str, Any]]:
    """The reasons of an entity, by its flagged rows.

    A contribution is the mean of the sizes over these rows, weighted by their scores; its direction is that of the
    mean with signs.
    """
    own, weight = contributions[:, : len(names)], np.maximum(scores, 1e-12)
    size = np.average(np.abs(own), axis=0, weights=weight)
    sign = np.average(own, axis=0, weights=weight)
    order = np.argsort(-size, kind="stable")[:top]
    return [
        {"feature": names[at], "contribution": _round(float(size[at])), "direction": direction(float(sign[at]))}
        for at in order.tolist()
    ]


def importance(names: Sequence[str], contributions: Floats) -> list[dict[str, Any]]:
    """Features by the mean size of their contributions over some rows, the largest first."""
    size = np.abs(contributions[:, : len(names)]).mean(axis=0)
    return [{"feature": names[at], "contribution": _round(float(size[at]))} for at in np.argsort(-size, kind="stable")]


def direction(contribution: float) -> str:
    """Whether it makes the row odder."""
    return LOWERS if contribution < 0 else RAISES


def _round(value: float) -> float:
    return float(f"{value:.6g}")
