"""Write a made-up journal of double entries with odd ones among them: `python examples/journal.py data/journal`.

    entries/part-*.parquet    a row a line of an entry: entry, account, posted_at, amount, user, partner, memo
    truth.parquet             the entries that are odd, with their scenario

Every entry has two lines that add up to zero. People post in office hours, each on accounts of their own; amounts are
lognormal by account. About one entry in 150 is then one of these:

    round     a round amount, much larger than the account usually sees
    hours     posted at night or on a Sunday
    pair      an account and an offsetting account that never meet otherwise
    split     a payment cut into three just below the limit of 10,000 that needs a second signature
    duplicate the same amount on the same accounts again, within two days
    reversal  a large amount on the last day of a month, taken back on the first days of the next
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SCENARIOS = ("round", "hours", "pair", "split", "duplicate", "reversal")
ACCOUNTS, USERS, DAYS, LIMIT = 60, 14, 360, 10_000.0
START = np.datetime64("2025-01-01", "us")
HOUR, DAY = np.timedelta64(3_600_000_000, "us"), np.timedelta64(86_400_000_000, "us")
Odd = dict[str, NDArray[np.int64]]


def journal(entries: int, seed: int = 1) -> tuple[pa.Table, pa.Table]:
    """The lines of a journal of about so many entries, by time, and the odd entries with their scenario."""
    rng = np.random.default_rng(seed)
    level = rng.normal(5.5, 1.2, ACCOUNTS)
    habits = rng.integers(0, ACCOUNTS, (ACCOUNTS, 4))  # the offsetting accounts that each account meets
    teams = rng.integers(0, USERS, (ACCOUNTS, 2))  # who posts on it
    account = rng.choice(ACCOUNTS, entries, p=_popularity())
    offset = habits[account, rng.choice(4, entries, p=(0.5, 0.25, 0.15, 0.1))]
    offset = np.where(offset == account, (account + 1) % ACCOUNTS, offset)
    user = teams[account, rng.integers(0, 2, entries)]
    amount = np.exp(rng.normal(level[account], 0.6)).round(2)
    posted = _office(rng, rng.integers(0, DAYS, entries))
    scenario = np.full(entries, "", dtype="<U9")
    each = max(entries // 900, 4)
    odd = rng.permutation(entries)[: each * len(SCENARIOS)].reshape(len(SCENARIOS), each)
    for name, rows in zip(SCENARIOS, odd, strict=True):
        scenario[rows] = name
    kept = dict(zip(SCENARIOS, odd, strict=True))
    rows = kept["round"]
    amount[rows] = np.maximum(np.round(np.exp(level[account[rows]] + 2.5), -3), 1000)
    rows = kept["hours"]
    sunday = posted[rows].astype("datetime64[W]").astype("datetime64[us]") + 3 * DAY  # weeks of numpy begin on Thursday
    night = posted[rows].astype("datetime64[D]").astype("datetime64[us]") + rng.integers(0, 5, each) * HOUR
    posted[rows] = np.where(rng.random(each) < 0.5, sunday + rng.integers(8, 20, each) * HOUR, night)
    rows = kept["pair"]
    offset[rows] = _strangers(rng, account[rows], habits)
    columns = [account, offset, user, amount, posted, scenario]
    columns = _append(columns, *_split(rng, columns, kept["split"]))
    columns = _append(columns, *_duplicate(rng, columns, kept["duplicate"]))
    columns = _append(columns, *_reversal(rng, columns, kept["reversal"]))
    return _tables(rng, *columns)


def _popularity() -> NDArray[np.float64]:
    weights = 1 / np.arange(2, ACCOUNTS + 2)
    return np.asarray(weights / weights.sum())


def _office(rng: np.random.Generator, days: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """A moment in office hours on each day, or on the Friday before where it is of a weekend."""
    weekday = (days + 2) % 7  # 2025-01-01 was a Wednesday
    days = np.maximum(days - np.maximum(weekday - 4, 0), 0)
    seconds = np.clip(rng.normal(13, 2.2, len(days)), 7.5, 18.5) * 3600
    return START + days * DAY + (seconds * 1e6).astype("timedelta64[us]")


def _strangers(rng: np.random.Generator, account: NDArray[np.int64], habits: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array(
        [rng.choice(np.setdiff1d(np.arange(ACCOUNTS), [*habits[one], one, (one + 1) % ACCOUNTS])) for one in account]
    )


Columns = list[NDArray]  # type: ignore[type-arg]


def _split(rng: np.random.Generator, columns: Columns, rows: NDArray[np.int64]) -> tuple[Columns, NDArray[np.int64]]:
    amount, posted = columns[3], columns[4]
    amount[rows] = (LIMIT * rng.uniform(0.95, 0.999, len(rows))).round(2)
    again = np.repeat(rows, 2)
    more = [one[again].copy() for one in columns]
    more[3] = (LIMIT * rng.uniform(0.95, 0.999, len(again))).round(2)
    more[4] = posted[again] + rng.integers(1, 90, len(again)) * (HOUR // 60)
    return more, again


def _duplicate(
    rng: np.random.Generator, columns: Columns, rows: NDArray[np.int64]
) -> tuple[Columns, NDArray[np.int64]]:
    more = [one[rows].copy() for one in columns]
    more[4] = more[4] + rng.integers(1, 48, len(rows)) * HOUR
    columns[5][rows] = ""  # the first of two is no duplicate
    return more, rows


def _reversal(rng: np.random.Generator, columns: Columns, rows: NDArray[np.int64]) -> tuple[Columns, NDArray[np.int64]]:
    amount, posted = columns[3], columns[4]
    month = (posted[rows].astype("datetime64[M]") + np.timedelta64(1, "M")).astype("datetime64[us]")
    posted[rows] = month - rng.integers(7, 15, len(rows)) * HOUR
    amount[rows] = (amount[rows] * 6).round(2)
    more = [one[rows].copy() for one in columns]
    more[3] = -amount[rows]
    more[4] = month + rng.integers(8, 60, len(rows)) * HOUR
    return more, rows


def _append(columns: Columns, more: Columns, _: NDArray[np.int64]) -> Columns:
    return [np.concatenate(both) for both in zip(columns, more, strict=True)]


def _tables(
    rng: np.random.Generator,
    account: NDArray[np.int64],
    offset: NDArray[np.int64],
    user: NDArray[np.int64],
    amount: NDArray[np.float64],
    posted: NDArray[np.datetime64],
    scenario: NDArray[np.str_],
) -> tuple[pa.Table, pa.Table]:
    order = np.argsort(posted, kind="stable")
    account, offset, user, amount, posted, scenario = (
        one[order] for one in (account, offset, user, amount, posted, scenario)
    )
    number = np.arange(len(order), dtype=np.int64)
    memos = np.array(["invoice", "payroll", "transfer", "accrual", "rent", "fee"])
    memo = memos[(account + rng.integers(0, 2, len(order))) % len(memos)]
    lines = np.repeat(number, 2)
    side = np.tile([0, 1], len(order))
    own, other = (np.where(side == 0, one[lines], two[lines]) for one, two in ((account, offset), (offset, account)))
    names = pa.array([f"{4000 + 10 * at}" for at in range(ACCOUNTS)])
    table = pa.table(
        {
            "entry": pa.array(lines * 2 + side),
            "account": names.take(pa.array(own)),
            "posted_at": pa.array(posted[lines]),
            "amount": pa.array(np.where(side == 0, amount[lines], -amount[lines])),
            "user": pa.array([f"u{at:02}" for at in range(USERS)]).take(pa.array(user[lines])),
            "partner": names.take(pa.array(other)),
            "memo": pa.array(memo[lines]),
        }
    )
    odd = np.flatnonzero(scenario != "")
    both = np.repeat(odd, 2) * 2 + np.tile([0, 1], len(odd))
    return table, pa.table(
        {"entry": both, "scenario": pa.array(np.repeat(scenario[odd], 2).astype(object), pa.string())}
    )


def main(folder: Path, entries: int = 40_000) -> None:
    """Write a journal into a folder."""
    table, truth = journal(entries)
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    size = -(-len(table) // 4)
    for part in range(4):
        pq.write_table(table.slice(part * size, size), folder / "entries" / f"part-{part}.parquet")
    pq.write_table(truth, folder / "truth.parquet")
    print(f"{folder}: {len(table):,} lines, {len(truth):,} of them odd")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
