"""ARIMA with its order found by search: Hyndman and Khandakar (2008), as R's `auto.arima`, for all series at once.

Differences are chosen by tests (differences.py). From a few common orders each series then moves to the neighbour of
the lowest AICc until none is lower. Series that want the same order fitted are fitted in one call, each by exact
maximum likelihood, so that nothing is approximated. Orders with a root near the unit circle are left out.

What comes out is an ARIMA model: `Parameters.model` is arima, and arima.py forecasts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import arima, segments
from almanac_jobs.forecast.arima import Order
from almanac_jobs.forecast.differences import differences
from almanac_jobs.forecast.segments import Mask
from almanac_jobs.forecast.types import Floats, Ints, Parameters, SeriesBatch

MOST = (5, 5, 2, 2)
"""The largest p, q, P and Q."""
NEAR_UNIT_ROOT = 1.01
"""Orders with a root of smaller modulus are left out, each polynomial taken in its own lag."""
BETTER = 1e-6
"""A difference of AICc below this is rounding."""
STARTS = 4
"""Starting points of a fit while orders are compared; the order chosen is fitted from as many as it needs."""

# Every order that a search can come to: rows of p, q, P, Q and whether there is a constant.
_ORDERS = np.array(list(product(*(range(most + 1) for most in MOST), (0, 1))))
_WIDTHS = np.array([*MOST, 1]) + 1
_MOVES = np.array(
    [(p, q, 0, 0, 0) for p, q in product((-1, 0, 1), repeat=2) if p or q]
    + [(0, 0, p, q, 0) for p, q in product((-1, 0, 1), repeat=2) if p or q]
)


def _number(orders: Ints) -> Ints:
    """Where rows of p, q, P, Q and constant are in _ORDERS."""
    numbers: Ints = np.ravel_multi_index(tuple(orders.T), tuple(_WIDTHS))
    return numbers


def _neighbours() -> Ints:
    """(orders, moves): the numbers of each order's neighbours, -1 for those beyond the largest."""
    toggled = _ORDERS[:, None] * [1, 1, 1, 1, -1] + [0, 0, 0, 0, 1]
    moved = np.concatenate([_ORDERS[:, None] + _MOVES, toggled], axis=1)
    inside = ((moved >= 0) & (moved < _WIDTHS)).all(axis=2)
    numbers = _number(np.where(inside[..., None], moved, 0).reshape(-1, 5)).reshape(inside.shape)
    return np.where(inside, numbers, -1)


_NEIGHBOURS = _neighbours()


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """Find and fit an order for each series; see `arima.fit_order` for what becomes of a series that is too short."""
    m = model.season_length
    first, seasonal = differences(batch.values, m)
    orders = np.empty(len(batch), object)
    for d, D in np.unique(np.column_stack([first, seasonal]), axis=0):  # noqa: N806 (the field's own letters)
        rows = np.flatnonzero((first == d) & (seasonal == D))
        search = _Search(batch.take(rows), int(d), int(D), m)
        orders[rows] = [search.order(number) for number in search.run()]
    names = orders.astype(np.str_)
    parts = []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        parts.append((rows, arima.fit_order(batch.take(rows), orders[rows[0]])))
    return segments.merge(parts) if parts else arima.fit_order(batch, Order(0, 0, 0))


@dataclass(frozen=True, slots=True)
class _Search:
    """Series that are differenced alike."""

    batch: SeriesBatch
    d: int
    D: int
    m: int

    def order(self, number: int) -> Order:
        p, q, P, Q, constant = _ORDERS[number].tolist()  # noqa: N806
        return Order(p, self.d, q, P, self.D, Q, self.m if P or self.D or Q else 1, bool(constant))

    def run(self) -> Ints:
        """The number of the best order of each series."""
        allowed, wanted = self._allowed(), self._starts()
        scores = np.full(allowed.shape, np.nan)
        self._fit(wanted, scores)
        best = np.nanargmin(scores, axis=1)
        moving = np.arange(len(self.batch))
        while len(moving):
            around = _NEIGHBOURS[best[moving]]
            reachable = (around >= 0) & allowed[moving[:, None], around]
            wanted = np.zeros(allowed.shape, np.bool_)
            wanted[np.broadcast_to(moving[:, None], around.shape)[reachable], around[reachable]] = True
            self._fit(wanted & np.isnan(scores), scores)
            found = np.where(reachable, scores[moving[:, None], around], np.inf)
            lowest = found.argmin(axis=1)
            lower = found.min(axis=1) < scores[moving, best[moving]] - BETTER
            best[moving[lower]] = around[lower, lowest[lower]]
            moving = moving[lower]
        return best

    def _limits(self) -> Ints:
        """(series, 4): the largest p, q, P and Q for the length of each series."""
        third = self.batch.observed[:, None] // 3
        limits = np.minimum(MOST, third // [1, 1, self.m, self.m])
        if self.m == 1:
            limits[:, 2:] = 0
        else:  # terms at the season's lag are seasonal ones
            limits[:, :2] = np.where(limits[:, 2:] > 0, np.minimum(limits[:, :2], self.m - 1), limits[:, :2])
        return limits

    def _allowed(self) -> Mask:
        constant = self.d + self.D <= 1
        with_constant: Mask = _ORDERS[:, 4] == 1
        within: Mask = (_ORDERS[:, :4] <= self._limits()[:, None]).all(axis=2)
        return within if constant else within & ~with_constant

    def _starts(self) -> Mask:
        """(series, orders): where searches begin: no terms, p = P = 1, q = Q = 1, and p = q = 2 with P = Q = 1."""
        limits, constant = self._limits(), int(self.d + self.D <= 1)
        few = self.batch.observed[:, None] < 10
        largest = np.where(few, [1, 1, 0, 0], [2, 2, 1, 1])
        starts = np.zeros((len(limits), len(_ORDERS)), np.bool_)
        for terms in (largest, [0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]):
            within = np.minimum(terms, limits)
            starts[np.arange(len(limits)), _number(np.column_stack([within, np.full(len(limits), constant)]))] = True
        starts[:, 0] = True
        return starts

    def _fit(self, wanted: Mask, scores: Floats) -> None:
        """Fill in the scores that are wanted: AICc, or infinity where an order will not do."""
        for number in np.flatnonzero(wanted.any(axis=0)):
            rows, order = np.flatnonzero(wanted[:, number]), self.order(int(number))
            fitted = arima.fit_order(self.batch.take(rows), order, min(STARTS, order.starts))
            usable = np.isfinite(fitted.aicc)
            usable[usable] = _far_from_unit_roots(order, fitted.take(np.flatnonzero(usable)))
            scores[rows, number] = np.where(usable, fitted.aicc, np.inf)


def _far_from_unit_roots(order: Order, fitted: Parameters) -> Mask:
    """Whether the roots of each polynomial are outside the circle of radius NEAR_UNIT_ROOT."""
    far = np.ones(len(fitted), np.bool_)
    cuts = np.cumsum((order.p, order.q, order.P, order.Q))
    coefficients = fitted.coefficients.values.reshape(len(fitted), order.arma.parameters)
    for part, sign in zip(np.split(coefficients, cuts, axis=1)[:4], (1, -1, 1, -1), strict=True):
        size = part.shape[1]
        if size:
            companion = np.zeros((len(fitted), size, size))
            companion[:, 0] = sign * part
            companion[:, np.arange(1, size), np.arange(size - 1)] = 1
            far &= (np.abs(np.linalg.eigvals(companion)) * NEAR_UNIT_ROOT < 1).all(axis=1)
    return far
