"""Writes the purchases of CDNOW's customers as Parquet, one folder a month: python examples/cdnow.py DOWNLOADS OUTPUT

CDNOW sold music on the web. The data are every purchase, up to June 1998, of the 23,570 people who first bought in the
first quarter of 1997 (Fader and Hardie, "Forecasting repeat sales at CDNOW", Interfaces 31(3), 2001). They come in the
wheel of the Python package `lifetimes` (MIT licence), which DOWNLOADS holds: `make demo` puts it there.

    customer  string         "00001" ... "23570"
    date      date           the day of the purchase
    cds       int32          how many CDs
    dollars   decimal(9,2)   for how much
    cohort    date           the Monday of the week of the customer's first purchase
"""

from __future__ import annotations

import sys
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

MEMBER = "lifetimes/datasets/CDNOW_master.txt"
SCHEMA = pa.schema({"customer": pa.string(), "date": pa.date32(), "cds": pa.int32(), "dollars": pa.decimal128(9, 2)})


def purchases(text: str) -> pa.Table:
    """The lines `customer yyyymmdd cds dollars`, after one line of names, as a table."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return pa.table(
        [
            [row[0] for row in rows],
            [date(int(row[1][:4]), int(row[1][4:6]), int(row[1][6:])) for row in rows],
            [int(row[2]) for row in rows],
            [Decimal(row[3]) for row in rows],
        ],
        schema=SCHEMA,
    )


def with_cohort(table: pa.Table) -> pa.Table:
    """The table and, for every row, the Monday of the week in which its customer bought first."""
    first: dict[str, date] = {}
    customers, dates = table["customer"].to_pylist(), table["date"].to_pylist()
    for customer, day in zip(customers, dates, strict=True):
        first[customer] = min(day, first.get(customer, day))
    mondays = [first[customer] - timedelta(days=first[customer].weekday()) for customer in customers]
    return table.append_column("cohort", pa.array(mondays, pa.date32()))


def main(downloads: str, output: str) -> None:
    (wheel,) = Path(downloads).glob("[Ll]ifetimes-*.whl")
    with ZipFile(wheel) as archive:
        table = with_cohort(purchases(archive.read(MEMBER).decode("ascii")))
    months = table.append_column("month", pc.strftime(table["date"], format="%Y-%m"))
    ds.write_dataset(
        months,
        output,
        format="parquet",
        partitioning=ds.partitioning(pa.schema({"month": pa.string()}), flavor="hive"),
        existing_data_behavior="delete_matching",
    )
    Path(output, "_SUCCESS").touch()
    days, customers = pc.min_max(table["date"]).as_py(), pc.count_distinct(table["customer"]).as_py()
    print(f"{table.num_rows:,} purchases by {customers:,} customers, {days['min']} to {days['max']}, in {output}")
    print("CDNOW (Fader and Hardie 2001), from the Python package lifetimes, MIT licence")


if __name__ == "__main__":
    main(*sys.argv[1:])
