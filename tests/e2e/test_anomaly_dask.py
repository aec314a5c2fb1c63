"""An AnomalyJob on Dask, with worker processes of this machine: the same results, whoever is lost on the way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
pytest.importorskip("xgboost", reason="the extra `anomaly` is not installed")

import almanac_jobs
from almanac.api import AnomalyJob, Dask, JobError
from almanac.cli import main
from almanac_jobs import detecting, judged, verdicts
from almanac_jobs import source as sources
from almanac_jobs.anomaly import artefact
from almanac_jobs.engines import dask_session, dask_tasks
from almanac_jobs.engines.dask_crew import DaskCrew
from almanac_jobs.engines.dask_session import Session
from almanac_jobs.engines.local import Alone
from almanac_jobs.progress import Interrupted, Progress
from almanac_jobs.scoring import AnomalyRun
from anomalies import entries, job
from ledgers import write_job, write_parquet

LEDGER = {"preset": "ledger", "ledger": {"user": "user", "counterparty": "partner"}, "exclude": ["fraud"]}
DETECTORS: dict[str, dict[str, Any]] = {
    "classifier": {"label": "fraud", "model__detector": "classifier"},
    "blend": {"label": "fraud", "features": LEDGER},
    "student": {"features": LEDGER},
    "reconstruction": {"model__detector": "reconstruction", "features": {"columns": ["amount", "lines", "user"]}},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files, whose last rows, in time, are all in the last one."""
    folder = tmp_path_factory.mktemp("source") / "in"
    rows = entries(2000, 80)
    for at in range(4):
        write_parquet(rows.slice(at * 500, 500), folder / f"{at}.parquet")
    return folder


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with dask_session.session(Dask(workers=2, threads=1), Progress()) as made:
        yield made


def parsed(source: Path, **fields: Any) -> AnomalyJob:
    return AnomalyJob.parse(job(source, source.parent / "out", **fields))


def model_of(made: AnomalyJob, session: Session | None = None, size: int = 1, **how: Any) -> dict[str, bytes]:
    """The files of the model that so many workers find, or this process."""
    external, progress = how.get("external", False), how.get("progress", Progress())
    dataset = judged.open_source(made.spec)
    if session is None:
        alone = Alone(1, progress)
        rows = judged.read(made.spec, dataset.types, [dataset], alone, external=external)
        found = detecting.find(made.spec, rows, alone, progress)
    else:
        parts = sources.portions(dataset, None, -(-dataset.rows // size))
        session.take_places(size, progress)
        crew = DaskCrew(session, size, 1 << 32, progress)
        with session.listening(crew.hear):
            rows = judged.read(made.spec, dataset.types, parts, crew, external=external)
            found = detecting.find(made.spec, rows, crew, progress)
    return artefact.files(found.model, found.golden)


@pytest.mark.parametrize("detector", DETECTORS)
def test_one_worker_finds_what_this_process_does(source: Path, session: Session, detector: str) -> None:
    made = parsed(source, **DETECTORS[detector])
    assert model_of(made, session) == model_of(made)


@pytest.mark.parametrize("detector", DETECTORS)
def test_as_many_workers_find_the_same_every_time(source: Path, session: Session, detector: str) -> None:
    """In memory and on the disk. The rows that the classifier is tested on are all at one worker."""
    made = parsed(source, **DETECTORS[detector])
    once = model_of(made, session, 2)
    assert model_of(made, session, 2, external=True) == once
    assert json.loads(once["model.json"])["features"] == json.loads(model_of(made)["model.json"])["features"]


class Killing(Progress):
    """Kills a process once so many trees are grown."""

    def __init__(self, pid: int, trees: int) -> None:
        super().__init__()
        self.trees = 0
        self._pid, self._at = pid, trees

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        self.trees += amount
        if self.trees == self._at:
            os.kill(self._pid, signal.SIGKILL)


@pytest.mark.parametrize(("detector", "place"), [("student", 0), ("classifier", 1)])
def test_a_worker_that_is_killed_costs_some_trees_and_changes_nothing(
    source: Path, session: Session, detector: str, place: int
) -> None:
    """It may be the one where they meet. Rows and features are drawn, by a seed, for every tree."""
    drawn = {"model__rounds": 60, "model__subsample": 0.8, "model__colsample_bytree": 0.7, "model__earlyStopping": 60}
    made = parsed(source, **DETECTORS[detector], **drawn)
    quiet = model_of(made, session, 2)
    (pid,) = session.results([session.submit(os.getpid, place=place)], Progress())
    progress = Killing(pid, 30)
    lost = session.lost
    assert model_of(made, session, 2, progress=progress) == quiet
    assert session.lost > lost
    assert 60 < progress.trees <= 80  # those from the twentieth on, which were kept, are grown twice


def run(folder: Path, source: Path, *arguments: str, **fields: Any) -> Any:
    made = job(source, folder / "out", **fields)
    folder.mkdir(exist_ok=True)
    command = ["run", "-f", str(write_job(folder / "job.yaml", made)), *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def tables(folder: Path) -> tuple[AnomalyRun, dict[str, pa.Table]]:
    found = almanac_jobs.load(str(folder / "out"))
    assert isinstance(found, AnomalyRun)
    found.verify()
    return found, {name: pa.concat_tables(found.parts(name)) for name in found.tables}


def test_a_whole_run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two workers write is what one process writes, but for what the model says."""
    monkeypatch.setattr(verdicts, "bucket_count", lambda entities: 4)
    monkeypatch.setattr(verdicts, "DOCUMENTS", 5)
    fields = {"features": LEDGER, "label": "fraud", "model__detector": "student", "contamination": 0.04}
    ended = run(tmp_path / "dask", source, engine="dask", dask={"workers": 2, "threads": 1}, **fields)
    assert ended.exit_code == 0, ended.output
    said = dict.fromkeys(line.split()[0].strip(",") for line in ended.stderr.splitlines())
    assert list(said)[-7:] == ["read", "train", "score", "explain", "write", "documents", "report"]
    assert run(tmp_path / "local", source, engine="local", **fields).exit_code == 0
    many, theirs = tables(tmp_path / "dask")
    one, ours = tables(tmp_path / "local")
    assert (many.report["engine"], many.report["detection"]["workers"]) == ("dask", 2)
    assert (many.report["buckets"], many.report["entities"], many.report["documents"]) == (4, 12, 5)
    assert sorted(file["path"] for file in many.report["files"] if "explanations" not in file["path"]) == sorted(
        file["path"] for file in one.report["files"] if "explanations" not in file["path"]
    )
    assert theirs["ledger"].equals(ours["ledger"])
    told = ["entity", "time", "id", "label"]
    assert theirs["scores"].select(told).equals(ours["scores"].select(told))
    for report, told_of in ((many.report, theirs), (one.report, ours)):
        flagged = report["detection"]["flagged"]
        assert 80 <= flagged <= 85  # of the same margin, all
        assert len(told_of["contributions"]) == flagged * 5
    assert f"{many.report['detection']['flagged']} of 2\u202f000 rows are flagged" in ended.stdout
    document = many.explanation(theirs["contributions"].sort_by([("score", "descending")])["entity"][0].as_py())
    assert document is not None
    assert document["flagged"] == len(document["anomalies"])


def test_a_sample_takes_no_workers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_session, "session", None)
    ended = run(tmp_path, source, "--sample", engine="dask", features=LEDGER)
    assert ended.exit_code == 0, ended.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"features": {"columns": ["day"]}}, "column `day` has the same value everywhere"),
        (
            {"label": "lines", "features": {"columns": ["amount"]}},
            "column `lines` holds 7 different values, 2 among them",
        ),
        ({"features": {"columns": ["amount", "infinite"]}}, "column `infinite` holds 1 infinite value"),
    ],
)
def test_bad_data_are_said_as_by_one_process(
    tmp_path: Path, session: Session, fields: dict[str, Any], words: str
) -> None:
    """Though no worker sees more than its own."""
    rows = entries(600)
    rows = rows.append_column("day", pa.array([3] * 600)).append_column("infinite", pa.array([1.0] * 599 + [np.inf]))
    for at in range(2):
        write_parquet(rows.slice(at * 300, 300), tmp_path / "in" / f"{at}.parquet")
    with pytest.raises(JobError, match=words):
        model_of(parsed(tmp_path / "in", **fields), session, 2)


def test_a_run_that_is_stopped_while_it_trains(source: Path, session: Session) -> None:
    class Stopping(Progress):
        def advance(self, amount: int = 1) -> None:
            self.stop()

    with pytest.raises(Interrupted):
        model_of(parsed(source, model__rounds=10_000, **DETECTORS["student"]), session, 2, progress=Stopping())
    session.client.run(dask_tasks.end, session.topic)
    assert session.client.submit(pow, 2, 3).result(20) == 8  # its threads are free again
