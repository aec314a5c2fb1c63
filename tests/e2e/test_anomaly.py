"""`almanac run` of an AnomalyJob, from Parquet to flagged rows with their reasons, and what is refused on the way."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

pytest.importorskip("xgboost", reason="the extra `anomaly` is not installed")

import xgboost

import almanac_jobs.anomaly
from almanac.api import JobError
from almanac.cli import main
from almanac_jobs import judged, verdicts
from almanac_jobs.model import Findings, read
from almanac_jobs.scoring import AnomalyRun
from anomalies import entries, job
from ledgers import write_job, write_parquet

LEDGER = {"preset": "ledger", "ledger": {"user": "user", "counterparty": "partner"}, "exclude": ["fraud"]}


def run(folder: Path, table: pa.Table | None = None, **fields: Any) -> dict[str, Any]:
    """The report of a run, or its failure."""
    source = folder / "in"
    if table is not None or not source.exists():
        rows = entries() if table is None else table
        half = len(rows) // 2
        write_parquet(rows.slice(0, half), source / "a.parquet")
        write_parquet(rows.slice(half), source / "b.parquet")
    made = job(source, folder / "out", **fields)
    ended = CliRunner().invoke(
        main, ["run", "-q", "-f", str(write_job(folder / "job.yaml", made)), "--output", "json"], catch_exceptions=False
    )
    report: dict[str, Any] = json.loads(ended.stdout)
    assert ended.exit_code == report["exitCode"]
    return report


def loaded(folder: Path) -> AnomalyRun:
    found = almanac_jobs.load(str(folder / "out"))
    assert isinstance(found, AnomalyRun)
    return found


def whole(found: AnomalyRun, table: str) -> pa.Table:
    return pa.concat_tables(found.parts(table))


@pytest.fixture(scope="module")
def ledger_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    report = run(folder, features=LEDGER, contamination=0.04)
    assert report["reason"] == "Completed", report["message"]
    return folder


def test_flagged_rows_are_the_odd_ones(ledger_run: Path) -> None:
    found = loaded(ledger_run)
    found.verify()
    assert found.tables == ("contributions", "entities", "ledger", "scores")
    scores = whole(found, "scores")
    truth = dict(zip(*(entries().column(name).to_pylist() for name in ("entry", "fraud")), strict=True))
    odd = np.array([truth[one] for one in scores.column("id").to_pylist()])
    flagged = np.asarray(scores.column("flagged"))
    assert flagged.sum() == 60
    assert odd[flagged].mean() > 0.75
    assert found.report["scores"] == {"flagged": 60}
    assert found.report["detection"]["detector"] == "student"
    assert scores.sort_by([("entity", "ascending"), ("time", "ascending")]).equals(scores)


def test_every_flagged_row_has_its_reasons(ledger_run: Path) -> None:
    found = loaded(ledger_run)
    told = whole(found, "contributions")
    assert told.column_names == [
        *("entity", "time", "id", "score", "rank", "feature", "value", "contribution", "direction")
    ]
    assert len(told) == 60 * 5
    sizes = np.abs(np.asarray(told.column("contribution")).reshape(-1, 5))
    assert (np.diff(sizes, axis=1) <= 0).all()
    entity = told.column("entity")[0].as_py()
    document = found.explanation(entity)
    assert document is not None
    rows = found.contributions(entity)
    assert document["flagged"] == len(document["anomalies"]) == len(rows) // 5
    assert document["rows"] == len(found.scores(entity))
    assert len(document["features"]) == 5
    by_id = {one["id"]: one["features"] for one in document["anomalies"]}
    first = rows.filter(pc.equal(rows.column("id"), rows.column("id")[0]))
    assert [one["feature"] for one in by_id[rows.column("id")[0].as_py()]] == first.column("feature").to_pylist()
    assert [one["direction"] for one in by_id[rows.column("id")[0].as_py()]] == first.column("direction").to_pylist()


def test_scores_are_the_same_ever_after(ledger_run: Path) -> None:
    """For all rows of the run, and for the later part of them, whose past the run has kept."""
    found = loaded(ledger_run)
    written = whole(found, "scores")
    margins = dict(zip(*(written.column(name).to_pylist() for name in ("id", "margin")), strict=True))
    table = entries().drop_columns(["fraud"])
    again = found.score(table)
    assert again.column("margin").to_pylist() == [margins[one] for one in table.column("entry").to_pylist()]
    later = table.filter(pc.greater_equal(table.column("posted_at"), table.column("posted_at")[1300]))
    assert 0 < len(later) < 300
    frame = found.score(later.to_pandas())
    assert frame.column("margin").to_pylist() == [margins[one] for one in later.column("entry").to_pylist()]
    told = found.explain(later, top_k=2)
    assert told.column("row").to_pylist() == sorted([*range(len(later))] * 2)


def test_frames_that_do_not_fit(ledger_run: Path) -> None:
    found = loaded(ledger_run)
    table = entries()
    with pytest.raises(JobError, match="there is no column `lines`"):
        found.score(table.drop_columns(["lines"]))
    with pytest.raises(JobError, match="column `lines` is of type string, and the model has learnt it as numbers"):
        found.score(table.set_column(6, "lines", table.column("lines").cast(pa.string())))
    with pytest.raises(JobError, match="there is no column `user`"):
        found.score(table.drop_columns(["user"]))
    with pytest.raises(KeyError, match="no entity `a99`"):
        found.scores("a99")


@pytest.mark.parametrize("spoil", ["margins", "bytes", "version", "missing"])
def test_a_model_that_scores_otherwise_is_refused(
    ledger_run: Path, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older XGBoost would, without a word."""
    folder = Path(loaded(ledger_run).folder.path)
    for file in ("report.json", "model.json", "model.ubj"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    manifest = json.loads((tmp_path / "model.json").read_text())
    words = ""
    match spoil:
        case "margins":
            manifest["golden"]["margins"][3] += 0.01
            words = "gives its golden rows other margins"
        case "bytes":
            (tmp_path / "model.ubj").write_bytes((tmp_path / "model.ubj").read_bytes()[:-1] + b"x")
            words = "model.ubj is not what the run has written"
        case "version":
            monkeypatch.setattr(xgboost, "__version__", "2.1.4")
            words = "needs xgboost 3.1 or later, and 2.1.4 is installed"
        case "missing":
            (tmp_path / "model.ubj").unlink()
            words = "model.ubj is missing"
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(JobError, match=words):
        almanac_jobs.load(str(tmp_path))


def test_the_page_needs_nothing_else(ledger_run: Path) -> None:
    page = (Path(loaded(ledger_run).folder.path) / "report.html").read_text()
    assert "60 of 1\u202f500 rows are flagged" in page
    assert page.count("data:image/png;base64,") == 5  # the beeswarm, and four waterfalls
    assert "<script" not in page
    assert "ledger.magnitude" in page


def test_the_same_again_and_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal data, spec and seed: equal bytes, wherever features lie; another seed: another model."""
    first = run(tmp_path, features=LEDGER)["result"]
    assert run(tmp_path, features=LEDGER)["result"]["checksum"] == first["checksum"]
    assert run(tmp_path, features=LEDGER, model__seed=1)["result"]["checksum"] != first["checksum"]
    monkeypatch.setattr(judged, "SHARE", 0.0)
    assert run(tmp_path, features=LEDGER)["result"]["checksum"] == first["checksum"]
    assert loaded(tmp_path).report["detection"]["externalMemory"]


@pytest.mark.parametrize(
    ("labels", "detector"), [("none", "student"), ("two", "student"), ("some", "blend"), ("all", "classifier")]
)
def test_auto_follows_the_labels(tmp_path: Path, labels: str, detector: str) -> None:
    table = entries(6000, 600)
    fraud = np.asarray(table.column("fraud"))
    known = {"none": 0, "two": 2, "some": 40, "all": 600}[labels]
    given = fraud & (np.cumsum(fraud) <= known)
    table = table.set_column(7, "fraud", pa.array(given.astype(np.int8)))
    report = run(
        tmp_path,
        table,
        **({} if labels == "none" else {"label": "fraud"}),
        features={"exclude": ["fraud"]} if labels == "none" else {},
    )
    assert report["reason"] == "Completed", report["message"]
    detection = loaded(tmp_path).report["detection"]
    assert detection["detector"] == detector
    assert detection["scoreIs"] == ("probability" if labels == "all" else "share")
    scores = report["result"]["scores"]
    assert set(scores) == {"flagged"} | (
        {"auc", "average_precision", "brier", "brier_skill"} if labels == "all" else set()
    )
    if labels == "all":
        assert scores["auc"] > 0.95
        assert scores["brier_skill"] > 0.5


def test_a_threshold_decides(tmp_path: Path) -> None:
    table = entries(6000, 600)
    run(tmp_path, table, label="fraud", threshold=0.5)
    scores = whole(loaded(tmp_path), "scores")
    assert np.array_equal(np.asarray(scores.column("flagged")), np.asarray(scores.column("score")) >= 0.5)
    assert 400 < pc.sum(scores.column("flagged")).as_py() < 700


def test_the_summary_says_what_to_look_at(tmp_path: Path) -> None:
    write_parquet(column("empty", lambda n: pa.nulls(n, pa.float64()))(entries()), tmp_path / "in" / "a.parquet")
    made = write_job(tmp_path / "job.yaml", job(tmp_path / "in", tmp_path / "out"))
    ended = CliRunner().invoke(main, ["run", "-q", "-f", str(made)], catch_exceptions=False)
    said = " ".join(ended.stdout.split())
    assert re.match(r"✓ 1[5-9] of 1 500 rows are flagged", said)
    assert "Not tested: that takes labels." in said
    assert "left out column empty: holds nothing but nulls" in said
    assert f"show {tmp_path / 'out'} --entity a" in said.replace("\n", "")


def test_a_sample_writes_nothing(tmp_path: Path) -> None:
    write_parquet(entries(), tmp_path / "in" / "a.parquet")
    made = write_job(tmp_path / "job.yaml", job(tmp_path / "in", tmp_path / "out"))
    ended = CliRunner().invoke(main, ["run", "-q", "-f", str(made), "--sample"], catch_exceptions=False)
    assert ended.stdout.startswith("✓ trained student on the first 1\u202f500 rows: there is no label")
    assert CliRunner().invoke(main, ["run", "-q", "-f", str(made), "--dry-run"]).exit_code == 0
    assert not (tmp_path / "out").exists()


def test_show_tells_an_entity(ledger_run: Path) -> None:
    entity = whole(loaded(ledger_run), "contributions").column("entity")[0].as_py()
    shown = CliRunner().invoke(main, ["show", str(ledger_run / "out"), "--entity", entity], catch_exceptions=False)
    assert "rows are flagged" in shown.stdout
    assert "because of" in shown.stdout
    listed = CliRunner().invoke(main, ["show", str(ledger_run / "out")], catch_exceptions=False)
    first, head, oddest, *_ = listed.stdout.splitlines()
    assert (first, head.split()[:3]) == ("12 entities", ["the", "oddest", "flagged"])
    reasons = whole(loaded(ledger_run), "contributions")
    flagged = Counter(reasons.filter(pc.field("rank") == 1).column("entity").to_pylist())
    assert int(oddest.split()[1]) == max(flagged.values()) == flagged[oddest.split()[0]]
    refused = CliRunner().invoke(main, ["show", str(ledger_run / "out"), "--entity", entity, "--horizon", "3"])
    assert refused.exit_code == 2


def column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """A table with a column replaced or added; `values` are made of its length."""

    def change(table: pa.Table) -> pa.Table:
        made = values(len(table)) if callable(values) else values
        table = table.drop_columns([name]) if name in table.column_names else table
        return table.append_column(name, pa.array(made))

    return change


def only(*names: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.select(list(names))


@pytest.mark.parametrize(
    ("change", "fields", "reason", "words"),
    [
        (
            only("entry", "account", "posted_at"),
            {},
            "DataError",
            "spec.features: no column is left to judge rows by: the source has none besides entity, time, id and label",
        ),
        (
            column("amount", lambda n: [1.0] * n),
            {"features": {"exclude": ["user", "partner", "lines", "fraud"]}},
            "DataError",
            "no column is left to judge rows by: `amount` has the same value everywhere",
        ),
        (None, {"features": {"columns": ["amont"]}}, "DataError", "no column `amont`: did you mean `amount`?"),
        (None, {"label": "fruad"}, "DataError", "spec.label: there is no column `fruad`"),
        (column("fraud", lambda n: [True] * n), {"label": "fraud"}, "DataError", "says of every row that it is odd"),
        (
            column("fraud", lambda n: [False] * n),
            {"label": "fraud", "model__detector": "classifier"},
            "DataError",
            "spec.label: 0 rows are labelled odd, and classifier needs 3 at least",
        ),
        (
            column("fraud", lambda n: [at % 3 for at in range(n)]),
            {"label": "fraud"},
            "DataError",
            "spec.label: column `fraud` holds 3 different values, 2 among them",
        ),
        (
            column("fraud", lambda n: ["yes", "no"] * (n // 2)),
            {"label": "fraud"},
            "DataError",
            "spec.label: column `fraud` is of type string: write true and false",
        ),
        (
            column("amount", lambda n: [np.inf] * 2 + [1.0] * (n - 2)),
            {},
            "DataError",
            "column `amount` holds 2 infinite values",
        ),
        (
            column("empty", lambda n: pa.nulls(n, pa.float64())),
            {"features": {"columns": ["empty", "amount"]}},
            "DataError",
            "column `empty` holds nothing but nulls: leave it out",
        ),
        (
            column("posted_at", lambda n: ["2026-01-01"] * n),
            {},
            "DataError",
            "spec.source.columns.time: column `posted_at`",
        ),
        (
            column("account", lambda n: pa.nulls(n, pa.string())),
            {},
            "DataError",
            "has both entity and time: of 1500, 1500 have no",
        ),
        (
            column("amount", lambda n: ["x"] * n),
            {"features": {"preset": "ledger"}},
            "DataError",
            "spec.features.ledger.amount: column `amount` is of type string",
        ),
        (
            None,
            {"features": {"preset": "ledger", "ledger": {"user": "usr"}}},
            "DataError",
            "spec.features.ledger.user: the source has no column `usr`",
        ),
        (None, {"source__filter": "amount > 1000000"}, "SourceEmpty", "no row of"),
        (
            column("fraud", lambda n: np.random.default_rng(0).random(n) < 0.2),
            {"label": "fraud", "model__detector": "classifier", "features": {"columns": ["lines"]}},
            "LearntNothing",
            "learnt nothing",
        ),
        (None, {"contamination": 0}, "InvalidSpec", "spec.contamination: must be above 0 (got 0)"),
    ],
)
def test_bad_input(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table] | None, fields: dict[str, Any], reason: str, words: str
) -> None:
    table = entries() if change is None else change(entries())
    report = run(tmp_path, table, **fields)
    assert (report["reason"], words in report["message"]) == (reason, True), report["message"]
    assert not (tmp_path / "out" / "runs").exists() or not any((tmp_path / "out" / "runs").iterdir())


def test_what_was_found_is_read_without_them(ledger_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(almanac_jobs, "scoring")
    monkeypatch.delattr(almanac_jobs.anomaly, "artefact")
    for name in ("almanac_jobs.scoring", "almanac_jobs.anomaly.artefact"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    out = str(ledger_run / "out")
    with pytest.raises(JobError, match=r"pip install 'almanac\[anomaly\]'"):
        almanac_jobs.load(out)
    found = read(out)
    assert isinstance(found, Findings)
    odd = found.oddest(1).to_pylist()[0]
    explanation = found.explanation(odd["entity"])
    assert explanation is not None
    assert explanation["flagged"] == odd["flagged"]
    assert repr(found) == f"<Findings of default/entries, run {found.report['run']}: 12 entities in {found.folder.uri}>"


def test_without_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(almanac_jobs, "detecting")
    monkeypatch.delitem(sys.modules, "almanac_jobs.detecting")
    monkeypatch.setitem(sys.modules, "xgboost", None)
    report = run(tmp_path)
    assert report["reason"] == "NotInstalled"
    assert report["message"] == (
        "kind: an AnomalyJob needs xgboost, which is not installed: pip install 'almanac[anomaly]'"
    )


def test_rows_without_a_key_are_left_out(tmp_path: Path) -> None:
    table = entries()
    account = table.column("account").to_pylist()
    account[5] = account[9] = None
    run(tmp_path, column("account", account)(table))
    found = loaded(tmp_path)
    assert found.report["source"] == {"rows": 1500, "nullEntities": 2, "nullTimes": 0}
    assert len(whole(found, "scores")) == 1498


def test_too_big_for_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cluster can take over, the driver says so instead of being killed."""
    from almanac_jobs import __main__ as driver

    write_parquet(entries(), tmp_path / "in" / "a.parquet")
    (tmp_path / "job.json").write_text(json.dumps(job(tmp_path / "in", tmp_path / "out")))
    monkeypatch.setattr("almanac_jobs.run.memory_limit", lambda: 1000)
    log = tmp_path / "end"
    code = driver.main([str(tmp_path / "job.json"), "--run-id", "r1", "--termination-log", str(log), "--port", "0"])
    assert code == 79
    assert json.loads(log.read_text())["reason"] == "TooBigForLocal"


def test_many_flagged_entities_share_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "DOCUMENTS", 3)
    run(tmp_path, contamination=0.1)
    report = loaded(tmp_path).report
    assert report["documents"] == 3
    assert report["entitiesWithoutDocument"] == 9
    assert len(list((tmp_path / "out").glob("runs/*/explanations/*.json"))) == 3
    assert len(pq.read_table(next((tmp_path / "out").glob("runs/*/contributions")))) == 150 * 5
