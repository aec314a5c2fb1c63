"""What an author of a job may try, where no other test tries it: docs/security.md says what stops them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import goldens
from almanac import cluster
from almanac.cluster import Cluster
from almanac.kubeconfig import Access
from almanac_jobs.__main__ import main
from manifests import document

ROOT = Path(__file__).parents[2]
ANSWER = '{"AccessKeyId": "KEY-OF-THE-NODE", "SecretAccessKey": "HUSH"}'


@contextmanager
def answering(status: int, text: str, head: int = 200, **headers: str) -> Iterator[tuple[int, list[str]]]:
    """A service that answers everything with the same; gives its port, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(head if self.command == "HEAD" else status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - named by http.server

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("head", [200, 404])
@pytest.mark.parametrize("field", ["source", "output"])
def test_what_a_metadata_service_answers_is_told_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], field: str, head: int
) -> None:
    """A storage endpoint that is none: neither status nor log repeats what it says."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    days = [date(2026, 1, 1) + timedelta(day) for day in range(60)]
    lake = tmp_path / "lake.parquet"
    pq.write_table(pa.table({"account": ["a"] * 60, "date": days, "amount": [1.0] * 60}), lake)
    job, told = tmp_path / "job.json", tmp_path / "told"
    with answering(200, ANSWER, head) as (port, asked):
        there = {"source": {"uri": str(lake)}, "output": {"uri": str(tmp_path / "out")}}
        there[field] = {"uri": "s3://latest/meta-data/iam/security-credentials/node"}
        made = document(frequency="D", storage={"endpoint": f"http://127.0.0.1:{port}"})
        for place, what in there.items():
            made["spec"][place] |= what
        job.write_text(json.dumps(made))
        code = main([str(job), "--run-id", "20261121-021500-3f9a2c", "--termination-log", str(told), "--port", "0"])
    assert code != 0
    assert asked, "it was not even asked"
    said = told.read_text() + "".join(capfd.readouterr())
    assert json.loads(told.read_text())["reason"] != "InternalError", "it is not Almanac that is at fault"
    assert "KEY-OF-THE-NODE" not in said
    assert "HUSH" not in said


@pytest.mark.parametrize(
    ("status", "text", "headers"),
    [
        (302, "", {"Location": "/elsewhere"}),
        (200, json.dumps({"stage": "x" * 100_000}), {}),
        (200, "[" * 4000, {}),
        (200, '["a", "list"]', {}),
        (500, ANSWER, {}),
    ],
    ids=["redirect", "long", "deep", "list", "error"],
)
def test_a_pod_cannot_lead_the_operator_elsewhere(
    monkeypatch: pytest.MonkeyPatch, status: int, text: str, headers: dict[str, str]
) -> None:
    """The operator asks a driver's pod how far it is: one question, whose answer is short or is none."""

    async def ask() -> dict[str, Any] | None:
        async with Cluster(Access("http://127.0.0.1:9")) as api:
            return await api.progress("127.0.0.1")

    with answering(status, text, **headers) as (port, asked):
        monkeypatch.setattr(cluster, "PROGRESS_PORT", port)
        assert asyncio.run(ask()) is None
    assert asked == ["/progress"]


@pytest.mark.parametrize("name", goldens.NAMES)
def test_nothing_of_a_run_is_in_another_namespace_or_of_the_whole_cluster(name: str) -> None:
    of = goldens.document(name)
    for one in goldens.manifests(goldens.job(of)):
        assert not one["kind"].startswith("Cluster")
        for place in (one["metadata"], *one.get("subjects", ())):
            assert place["namespace"] == of["metadata"].get("namespace", "default")


def test_the_tests_that_the_documentation_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
