"""Preset ledger: each feature against its definition row by row, and that nothing looks ahead."""

import math
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almanac.api import JobError, LedgerColumns
from almanac_jobs.anomaly.ledger import Ledger, everywhere
from crews import Several

LEDGER = Ledger(LedgerColumns(user="user", counterparty="other"), "account", "when", hours=True, time_zone=None)
NAMES = [one.name.removeprefix("ledger.") for one in LEDGER.features]
START = datetime(2026, 1, 30, 22, 15)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {
        "account": pa.string(),
        "when": pa.timestamp("us"),
        "amount": pa.float64(),
        "user": pa.string(),
        "other": pa.string(),
    }
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def lying_apart(rows: pa.Table, places: int, seed: int) -> pa.Table:
    """The features of rows that lie in several places."""
    crew = Several(places)
    at = np.sort(np.random.default_rng(seed).integers(0, len(rows) + 1, places - 1))
    ends = [0, *at.tolist(), len(rows)]
    shares = crew.deal([rows.slice(first, last - first) for first, last in pairwise(ends)])
    return np.concatenate(crew.fetch(everywhere(crew, LEDGER, shares)))


def entry(
    hours: float = 0, amount: float | None = 10.0, account: str = "a", user: str = "u", other: str = "x"
) -> dict[str, Any]:
    when = START + timedelta(hours=hours)
    return {"account": account, "when": when, "amount": amount, "user": user, "other": other}


def by_definition(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[float]:
    """The features of a row, as the documentation has them, by looking at every other row."""
    earlier = [one for one in rows if one["when"] < row["when"]]
    own = [one for one in earlier if one["account"] == row["account"]]
    amount = math.nan if row["amount"] is None else row["amount"]
    size = abs(amount)
    digits = f"{size:.20e}"

    def logarithm(value: float | None) -> float:
        return math.log10(1 + abs(value or 0))

    def gap(to: list[dict[str, Any]]) -> float:
        return min(((row["when"] - one["when"]).total_seconds() for one in to), default=math.nan)

    def recency(days: float) -> float:
        return 0.0 if math.isnan(days) else 1 / (1 + days)

    def hour(one: dict[str, Any]) -> tuple[int, int]:
        return one["when"].weekday(), one["when"].hour

    def rarity(name: str, among: list[dict[str, Any]]) -> float:
        return math.log10((len(among) + 1) / (sum(one[name] == row[name] for one in among) + 1))

    cents = 0 if math.isnan(size) else round(size * 100)
    zeros = len(str(cents)) - len(str(cents).rstrip("0")) if cents else math.nan
    sizes = [round(logarithm(one["amount"]) * 4096) / 4096 for one in own]
    deviation = math.nan
    if len(own) >= 3 and not math.isnan(size):
        deviation = (logarithm(amount) - float(np.mean(sizes))) / (float(np.std(sizes)) + 0.1)
    month = (row["when"].replace(day=28) + timedelta(days=4)).replace(day=1)
    twins = sum(
        one["account"] == row["account"] and one["when"] == row["when"] and one["amount"] == row["amount"]
        for one in rows
    )
    repeat = 0.0 if twins > 1 else gap([one for one in own if one["amount"] == row["amount"]]) / 86400
    reverse = gap([one for one in own if one["amount"] is not None and one["amount"] == -amount and amount]) / 86400
    return [
        math.log10(1 + size),
        float(np.sign(amount)),
        size if math.isnan(size) else float(digits[0]) if size else 0.0,
        zeros,
        row["when"].weekday(),
        row["when"].hour + row["when"].minute / 60,
        (month.date() - row["when"].date()).days - 1,
        math.log10(1 + gap(own)),
        deviation,
        sum(one["when"].date() == row["when"].date() for one in own),
        math.nan if row["amount"] is None else recency(repeat),
        math.nan if row["amount"] is None else recency(reverse),
        math.log10((len(earlier) + 1) / (sum(hour(one) == hour(row) for one in earlier) + 1)),
        rarity("user", own),
        rarity("other", own),
        rarity("other", [one for one in earlier if one["user"] == row["user"]]),
    ]


ROWS = st.lists(
    st.builds(
        entry,
        hours=st.sampled_from([0, 1, 2.5, 24, 25, 49]),
        amount=st.sampled_from([0.0, 12.34, -12.34, 1000.0, -1000.0, 7.0, 0.1, None]),
        account=st.sampled_from("ab"),
        user=st.sampled_from("uv"),
        other=st.sampled_from("xy"),
    ),
    min_size=1,
    max_size=14,
)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_features_are_what_they_say(rows: list[dict[str, Any]]) -> None:
    expected = [by_definition(rows, row) for row in rows]
    np.testing.assert_allclose(LEDGER.encode(table(rows)), np.array(expected, np.float32), rtol=2e-4, atol=2e-4)


@given(ROWS, st.integers(0, 13), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_nothing_looks_ahead(rows: list[dict[str, Any]], at: int, chance: Any) -> None:
    """What is later changes no bit of what was, and neither does the order of rows."""
    moment = rows[at % len(rows)]["when"]
    whole = LEDGER.encode(table(rows))
    known = [place for place, row in enumerate(rows) if row["when"] <= moment]
    np.testing.assert_array_equal(LEDGER.encode(table([rows[place] for place in known])), whole[known])
    order = list(range(len(rows)))
    chance.shuffle(order)
    np.testing.assert_array_equal(LEDGER.encode(table([rows[place] for place in order])), whole[order])


@given(ROWS, st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_rows_may_lie_in_several_places(rows: list[dict[str, Any]], places: int, seed: int) -> None:
    np.testing.assert_array_equal(lying_apart(table(rows), places, seed), LEDGER.encode(table(rows)))


def test_columns_that_are_not_there() -> None:
    alone = Ledger(LedgerColumns(), "account", "when", hours=False, time_zone=None)
    assert not [one.name for one in alone.features if "user" in one.name or "counter" in one.name or "hour" in one.name]
    assert alone.encode(table([entry()]).select(["account", "when", "amount"])).shape == (1, len(alone.features))


def test_amounts_must_be_numbers() -> None:
    types = {"account": pa.string(), "when": pa.timestamp("us"), "amount": pa.string(), "user": pa.string()}
    with pytest.raises(JobError, match=r"spec.features.ledger.counterparty: the source has no column `other`"):
        LEDGER.check(types)
    with pytest.raises(JobError, match=r"spec.features.ledger.amount: column `amount` is of type string"):
        LEDGER.check(types | {"other": pa.string()})
    with pytest.raises(JobError, match=r"column `amount` holds 1 infinite value"):
        LEDGER.encode(table([entry(amount=math.inf)]))
