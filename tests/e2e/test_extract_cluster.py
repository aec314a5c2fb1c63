"""An extract in a real cluster, and a forecast of it: both through the operator, each in a pod.

Needs a cluster whose pods can reach this machine, and an image: KUBECONFIG, ALMANAC_TEST_IMAGE (the name of an image of
images/python/Dockerfile that nodes have or can pull) and ALMANAC_TEST_ADDRESS (of this machine, for pods).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest

import ledgers
import postgres
from almanac import names
from extracts import extract
from finance import ADDRESS, Finance, marks, operated
from kube.real import real
from postgres import Server
from s3 import S3Server

IMAGE = "ALMANAC_TEST_IMAGE"
pytestmark = marks(IMAGE)

ROWS = 3_000_000
RULES = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all all scram-sha-256\n"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server(os.environ[ADDRESS]) as server:
        server.make_bucket("lake")
        yield server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A table of journal entries, for a reader with a password."""
    if postgres.binaries() is None:
        pytest.skip(postgres.HELP)
    rules = tmp_path_factory.mktemp("rules") / "pg_hba.conf"
    with postgres.server("listen_addresses=*", "log_statement=all") as server:
        rules.write_text(RULES)
        shutil.copyfile(rules, server.folder / "data" / "pg_hba.conf")
        server.run(
            "SELECT pg_reload_conf()",
            "CREATE ROLE reader LOGIN PASSWORD 'open sesame'",
            "CREATE TABLE journal_entries (entry bigint PRIMARY KEY, account text, date date, amount numeric(12, 2))",
            "INSERT INTO journal_entries "
            "SELECT n, 'A-' || n % 50, date '2025-01-01' + (n / 50 % 200)::int, n % 1000 / 8.0 "
            f"FROM generate_series(1, {ROWS}) n",
            "GRANT SELECT ON journal_entries TO reader",
        )
        yield server


@pytest.fixture
def finance(real_api: Any, s3: S3Server, tmp_path: Path) -> Iterator[Finance]:
    access, controlled = real_api
    with real(access, controlled, tmp_path) as cluster:
        made = Finance(cluster, s3)
        with operated(cluster, {"ALMANAC_IMAGE": os.environ[IMAGE]}):
            yield made


def small(document: dict[str, Any]) -> dict[str, Any]:
    """A job whose requests are nothing, so that any node has room for it."""
    resources = {"requests": {"cpu": "0"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    document["spec"]["podTemplate"] = {"spec": {"containers": [{"name": names.CONTAINER, "resources": resources}]}}
    return document


def test_a_forecast_waits_for_its_extract_whose_driver_is_killed(finance: Finance, database: Server) -> None:
    """It reads exactly the run that the second driver completes, and no password is in any manifest."""
    extracted = copy(finance)
    extracted.plural = "extractjobs"
    forecast = small(ledgers.job("", "", source__columns={"entity": "account", "time": "date", "value": "amount"}))
    del forecast["spec"]["source"]["uri"]
    forecast["spec"]["source"]["extract"] = {"name": "entries"}
    finance.submit(forecast)
    finance.until(lambda: finance.said[1] == "WaitingForExtract", "the forecast to wait")
    connection = database.connection | {"host": os.environ[ADDRESS], "user": "reader", "secretName": "database"}
    finance.client.create(
        "secrets", {"metadata": {"name": "database"}, "stringData": {"PGPASSWORD": "open sesame"}}, version="v1"
    )
    document = small(extract(source__connection=connection, partition={"by": "month", "column": "date"}))
    extracted.submit(document)
    extracted.until(lambda: "COPY (" in database.log, "a driver to read")
    extracted.kill(extracted.until(extracted.running(names.DRIVER), "the kubelet to say so")[0])
    report = extracted.succeeds()
    assert report["source"]["rows"] == ROWS
    assert finance.succeeds()["source"]["rows"] == ROWS
    run = extracted.status["run"]["id"]
    assert finance.status["run"]["source"].rstrip("/").endswith(f"/runs/{run}")
    assert "open sesame" not in str([one for kind in ("configmaps", "jobs", "pods") for one in finance.left(kind)])
