"""A table of PostgreSQL to partitioned Parquet, by Almanac and by hand; and an extract that is killed again and again.

    python -m benchmarks.extract                  speed and memory, three rounds
    python -m benchmarks.extract --kills 100      kills instead

By hand is the best that one process does in a few lines: ADBC in a stream, ADBC as one table, connectorx by one and by
two connections, each followed by `pyarrow.dataset.write_dataset` into the same folders with the same codec, numerics
as decimals. Every contender is a process of its own on a server of the benchmark's own; the time is that of the work,
without imports. The last line is JSON.

A killed extract is one whose process gets SIGKILL at a random moment, while rows are inserted, changed, moved to other
keys and deleted. After some kills nothing changes any more, and the next attempt may end: what it has published is held
against the table, row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from postgres import Server, server

ROWS = 5_000_000
COLUMNS = "id, account, date, posted_at, amount, currency, status, quantity"
TABLE = """
CREATE TABLE journal_entries (id int8, account text, date date, posted_at timestamptz, amount numeric(18, 2),
  currency text, status text, quantity float8);
INSERT INTO journal_entries SELECT i, 'A-' || lpad(((hashint8(i)::int8 & 2147483647) % 20000)::text, 5, '0'),
  date '2022-01-01' + (i * 1096 / {rows})::int, timestamptz '2022-01-01' + i * interval '19 seconds',
  ((hashint8(i * 7)::int8 % 10000000) / 100.0)::numeric(18, 2), (array['EUR', 'USD', 'GBP'])[1 + i % 3],
  CASE WHEN i % 10 = 0 THEN 'draft' ELSE 'posted' END, hashint8(i * 3) / 1e6
  FROM generate_series(1, {rows}::int8) i;
ALTER TABLE journal_entries ADD PRIMARY KEY (id);
ANALYZE journal_entries
"""


def job(url: str, out: str, **source: Any) -> dict[str, Any]:
    """The extract of the table into months."""
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    connection = {"host": "127.0.0.1", "port": port, "database": "postgres", "user": "postgres"}
    return {
        "metadata": {"name": "journal-entries"},
        "spec": {
            "source": {"connection": connection, **source},
            "partition": {"by": "month", "column": "date"},
            "output": {"uri": out},
        },
    }


def almanac(url: str, out: str) -> int:
    """An ExtractJob, in this process."""
    from almanac.api import Engine, ExtractJob
    from almanac_jobs import run
    from almanac_jobs.progress import Progress

    outcome = run.run(
        ExtractJob.parse(job(url, out)),
        engine=Engine.LOCAL,
        run_id="r1",
        clock=lambda: datetime.now(UTC),
        progress=Progress(),
        manifest="",
    )
    assert outcome.report.result is not None
    return outcome.report.result.rows


def adbc_stream(url: str, out: str) -> int:
    """ADBC's batches as they come."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM journal_entries")
        reader = cursor.fetch_record_batch()
        first = _with_folders(reader.read_next_batch())
        rows = first.num_rows

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal rows
            yield first
            for batch in map(_with_folders, reader):
                rows += batch.num_rows
                yield batch

        _write(pa.RecordBatchReader.from_batches(first.schema, batches()), out)
        return rows


def adbc_table(url: str, out: str) -> int:
    """ADBC's rows as one table in memory."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM journal_entries")
        table = cursor.fetch_arrow_table()
    table = pa.Table.from_batches([_with_folders(batch) for batch in table.to_batches()])
    _write(table, out)
    return len(table)


def connectorx(url: str, out: str) -> int:
    """connectorx by one connection."""
    return _connectorx(url, out)


def connectorx_two(url: str, out: str) -> int:
    """connectorx by two connections."""
    return _connectorx(url, out, partition_on="id", partition_num=2)


def _connectorx(url: str, out: str, **parts: Any) -> int:
    import connectorx as cx

    table = cx.read_sql(url, f"SELECT {COLUMNS} FROM journal_entries", return_type="arrow", **parts)
    months = {"year": pc.year(table["date"]), "month": pc.month(table["date"])}
    for name, values in months.items():
        table = table.append_column(name, values)
    _write(table, out)
    return len(table)


def _with_folders(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Numerics as decimals, and the columns that folders are made of."""
    amount = batch.column(4).storage.cast(pa.decimal128(18, 2))
    columns = {name: amount if name == "amount" else batch.column(at) for at, name in enumerate(batch.schema.names)}
    columns |= {"year": pc.year(columns["date"]), "month": pc.month(columns["date"])}
    return pa.RecordBatch.from_pydict(columns)


def _write(data: Any, out: str) -> None:
    format_ = ds.ParquetFileFormat()
    kinds = pa.schema([("year", pa.int64()), ("month", pa.int64())])
    ds.write_dataset(
        data,
        out,
        format=format_,
        file_options=format_.make_write_options(compression="zstd"),
        partitioning=ds.partitioning(kinds, flavor="hive"),
        max_rows_per_group=131_072,
    )


CONTENDERS: dict[str, Callable[[str, str], int]] = {
    one.__name__: one for one in (almanac, adbc_stream, adbc_table, connectorx, connectorx_two)
}


def child(name: str, url: str, out: str) -> None:
    """One contender, once: seconds, CPU seconds and peak memory as JSON."""
    work = CONTENDERS[name]
    import connectorx  # noqa: F401 - imports do not count, for nobody

    if name == "almanac":
        from almanac_jobs import extracting, run  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    rows = work(url, out)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu": cpu, "peak": used.ru_maxrss / 1024}))


def speed(rounds: int, rows: int, names: list[str]) -> dict[str, Any]:
    """Contenders in turns."""
    best: dict[str, dict[str, float]] = {}
    with server() as database, tempfile.TemporaryDirectory(prefix="almanac-extract-") as folder:
        database.run(*TABLE.format(rows=rows).split(";"))
        time.sleep(2)  # as below
        for number in range(rounds):
            for name in names:
                out = Path(folder) / f"{name}-{number}"
                command = [sys.executable, "-m", "benchmarks.extract", "--child", name, database.url, str(out)]
                before = database.cpu
                told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                time.sleep(0.5)  # for the server's processes to be gone, and their time to be counted
                told["server"] = database.cpu - before
                assert told["rows"] == rows, f"{name}: {told['rows']} rows"
                shutil.rmtree(out)
                print(
                    f"{name:15} {told['seconds']:6.1f} s {rows / told['seconds']:10,.0f} rows/s "
                    f"{told['cpu']:6.1f} s of CPU {told['server']:6.1f} s of the server's {told['peak']:7,.0f} MiB",
                    flush=True,
                )
                if name not in best or told["seconds"] < best[name]["seconds"]:
                    best[name] = {**told, "peak": max(told["peak"], best.get(name, told)["peak"])}
                best[name]["peak"] = max(best[name]["peak"], told["peak"])
    ours = best.pop("almanac")
    rival = min(best, key=lambda name: best[name]["seconds"])
    return {
        "rows_per_s": round(rows / ours["seconds"]),
        "best_single_process": rival,
        "over_best_single_process": round(best[rival]["seconds"] / ours["seconds"], 2),
        "peak_rss_mib": round(ours["peak"]),
    }


KILLED = """
import sys
from almanac_jobs.extract import arranging, relation
relation.RANGE_BYTES = 256 << 10
arranging.SMALL = 32 << 10
from almanac.cli import main
main(sys.argv[1:])
"""
"""An extract with many small ranges, so that a kill finds some done and some not."""


def kills(number: int, rows: int, seed: int) -> dict[str, Any]:
    """Kill an extract at random moments; hold what it publishes in the end against the table."""
    chance = random.Random(seed)  # noqa: S311 - a game
    done, runs, resumed, wrong, survived = 0, 0, 0, 0, 0
    with server() as database, tempfile.TemporaryDirectory(prefix="almanac-kills-") as folder:
        database.run(*TABLE.format(rows=rows).split(";"))
        database.run("ALTER TABLE journal_entries ADD updated_at timestamptz NOT NULL DEFAULT clock_timestamp()")
        out = Path(folder) / "out"
        while done < number:
            run = out / "runs" / f"run-{runs:03d}"
            command = _command(database, out, run.name, watermark=runs % 3 == 2)
            runs += 1
            with _changes(database, rows, chance.randrange(10**9)):
                code: int | None = None
                for _ in range(min(chance.randrange(2, 9), number - done)):
                    code = _killed(command, run, chance)
                    if code is not None:
                        break
                    done += 1
            assert code in (None, 0), f"{run.name} ended with {code}"
            if (run / "report.json").exists():  # it was quicker, if only just: rows may have changed since
                survived += 1
                print(f"{done} kills, {runs} runs; the last was quicker than what was to kill it", flush=True)
                continue
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
            source = json.loads((run / "report.json").read_text())["source"]
            resumed += source["resumedRanges"]
            same = _same(database, out)
            wrong += not same
            kept = f"{source['resumedRanges']} of {source['ranges']} ranges were still true"
            print(f"{done} kills, {runs} runs; {kept}; the table: {same}", flush=True)
    return {"kills": done, "runs": runs, "survived": survived, "resumed_ranges": resumed, "wrong": wrong}


def _killed(command: list[str], run: Path, chance: random.Random) -> int | None:
    """Start an extract and kill it, at any moment or, mostly, some time after it has begun to read; its exit code if it
    was quicker."""
    plan = run / ".state" / "plan.json"
    before = plan.stat().st_mtime_ns if plan.exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0, 3))
    else:
        while process.poll() is None and (not plan.exists() or plan.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 2))
    if process.poll() is None:
        process.kill()
        process.wait()
        return None
    return process.returncode


def _command(database: Server, out: Path, run: str, *, watermark: bool) -> list[str]:
    more = ["--watermark", "updated_at"] if watermark else []
    options = ["--partition-by", "month", "--column", "date", "--to", str(out), "--run-id", run, "-q", *more]
    return [sys.executable, "-c", KILLED, "extract", *options, database.url]


@contextmanager
def _changes(database: Server, rows: int, seed: int) -> Iterator[None]:
    """Rows change while the block lasts. None is deleted that a watermark would have to tell: ids move up only."""
    over = threading.Event()
    chance = random.Random(seed)  # noqa: S311 - a game

    def change() -> None:
        while not over.wait(0.2):
            at = chance.randrange(rows * 3 // 4, rows)  # the newest, as in life
            database.run(
                "UPDATE journal_entries SET amount = -amount, updated_at = clock_timestamp() "
                f"WHERE id BETWEEN {at} AND {at + 20}",
                f"UPDATE journal_entries SET date = date + 40, updated_at = clock_timestamp() WHERE id = {at + 30}",
                "INSERT INTO journal_entries SELECT max(id) + 1, 'A-new', '2025-01-01', now(), 1, 'EUR', 'new', 0, "
                "clock_timestamp() FROM journal_entries",
            )

    changer = threading.Thread(target=change)
    changer.start()
    try:
        yield
    finally:
        over.set()
        changer.join()


def _same(database: Server, out: Path) -> bool:
    """Whether the newest run holds the rows of the table, and no others, each once."""
    import adbc_driver_postgresql.dbapi as driver

    import almanac_jobs

    with driver.connect(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM journal_entries ORDER BY id")
        table = cursor.fetch_arrow_table()
    amount = pa.chunked_array([chunk.storage.cast(pa.decimal128(18, 2)) for chunk in table["amount"].chunks])
    wanted = table.set_column(4, "amount", amount).replace_schema_metadata(None)
    found: Any = almanac_jobs.load(str(out))
    read = found.to_table(columns=wanted.column_names).sort_by("id")
    same: bool = read.cast(pa.schema([(name, wanted[name].type) for name in wanted.column_names])).equals(
        wanted.cast(pa.schema([(name, wanted[name].type) for name in wanted.column_names]))
    )
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="these contenders, almanac among them")
    parser.add_argument("--kills", type=int, default=0, help="kill so often, instead of measuring")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--child", nargs=3, metavar=("NAME", "URL", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    if options.child:
        child(*options.child)
    elif options.kills:
        print(json.dumps(kills(options.kills, options.rows or 200_000, options.seed)))
    else:
        print(json.dumps(speed(options.rounds, options.rows or ROWS, options.only or list(CONTENDERS))))


if __name__ == "__main__":
    main()
