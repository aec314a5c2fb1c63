"""The client against a Kubernetes API, embedded and real."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from almanac import crd, names
from almanac.api import Phase
from almanac.cli import main
from almanac.client import (
    Client,
    ConflictError,
    JobRecord,
    NotFoundError,
    NotInstalledError,
    RejectedError,
    UnreachableError,
    aio,
)
from almanac.kubeconfig import Access
from almanac.render import defaulted, render
from kube.cluster import Cluster
from kube.rest import Embedded
from kube.server import Server
from manifests import document

RUN = "20261121-021500-3f9a2c"


@pytest.fixture
def client(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(aio, "RETRY_SECONDS", 0.05)
    with Client(access=Access(cluster.url, cluster.namespace)) as made:
        yield made


@pytest.fixture
def says(cluster: Cluster) -> Callable[..., None]:
    """Write a status, as the operator would."""

    def write(record: JobRecord, phase: str, reason: str, **more: Any) -> None:
        ready = {"type": "Ready", "status": "False", "reason": reason, "message": "so it is"}
        status = {"observedGeneration": record.generation, "phase": phase, "conditions": [ready], **more}
        cluster.client.patch("forecastjobs", record.name, {"status": status}, sub="status")

    return write


def test_submit_says_what_it_did(client: Client, cluster: Cluster) -> None:
    first = client.submit(document())
    assert (first.change, first.record.namespace) == ("created", cluster.namespace)
    assert client.submit(document()).change == "unchanged"
    assert client.submit(document(horizon=3), dry_run=True).change == "configured"
    assert client.status("ledger").spec["horizon"] == 30
    assert client.submit(document(horizon=3)).change == "configured"
    assert client.submit(document()).record.spec["horizon"] == 30  # what a file no longer says is a default again
    with pytest.raises(ConflictError, match="already exists"):
        client.submit(document(), create=True)


def test_what_a_cluster_has_can_be_submitted_again(client: Client) -> None:
    client.submit(document(), create=True)
    assert client.submit(client.status("ledger").document).change == "unchanged"


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"horizon": 0}, "spec.horizon"),
        ({"intervals": [80, 80]}, "must be different from each other"),
        ({"horizonn": 3}, "horizonn"),
    ],
)
def test_what_the_cluster_refuses(client: Client, create: bool, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RejectedError, match=told):
        client.submit(document(**fields), create=create, dry_run=True)


def test_cancel_and_resume(client: Client) -> None:
    client.submit(document())
    assert client.cancel("ledger").suspended
    assert client.submit(document(horizon=3)).record.suspended  # a file that does not speak of it leaves it
    with pytest.raises(ConflictError, match="almanac-cancel"):
        client.submit(document(suspend=False))
    assert not client.resume("ledger").suspended
    client.cancel("ledger", delete=True)
    with pytest.raises(NotFoundError):
        client.status("ledger")


def test_missing_jobs(client: Client) -> None:
    client.submit(document())
    with pytest.raises(NotFoundError, match=r"did you mean ledger\?"):
        client.status("legder")
    with pytest.raises(NotFoundError, match="not found"):
        client.submit(document(), namespace="there-is-no-such-namespace")


def test_wait(client: Client, says: Callable[..., None]) -> None:
    record = client.submit(document()).record
    threading.Timer(0.3, says, (record, "Running", "Running")).start()
    threading.Timer(0.6, says, (record, "Succeeded", "Completed")).start()
    seen: list[JobRecord] = []
    assert client.wait("ledger", timeout=30, on_change=seen.append).succeeded
    assert [one.phase for one in seen] == [None, Phase.RUNNING, Phase.SUCCEEDED]
    changed = client.submit(document(horizon=3)).record
    assert not changed.finished
    threading.Timer(0.3, says, (changed, "Failed", "DataError")).start()
    assert client.wait("ledger", timeout=30).failed


def test_watch_ends_with_its_job(client: Client) -> None:
    client.submit(document())
    watch = client.watch("ledger")
    assert next(watch).name == "ledger"
    threading.Timer(0.3, client.cancel, ("ledger",), {"delete": True}).start()
    with pytest.raises(NotFoundError, match="was deleted"):
        list(watch)


def test_list(client: Client, cluster: Cluster) -> None:
    for name, team in (("b", "finance"), ("a", "sales"), ("c", "finance")):
        client.submit({**document(), "metadata": {"name": name, "labels": {"team": team}}})
    assert [record.name for record in client.list()] == ["a", "b", "c"]
    assert [record.name for record in client.list(selector="team=finance")] == ["b", "c"]
    assert {"a", "b", "c"} <= {
        one.name for one in client.list(all_namespaces=True) if one.namespace == cluster.namespace
    }


def test_logs(client: Client, cluster: Cluster, says: Callable[..., None]) -> None:
    record = client.submit(document()).record
    says(record, "Running", "Running", run={"id": RUN})
    labels = {**dict(one.split("=") for one in names.job_selector(record.uid).split(",")), names.RUN: RUN}
    spec = {"schedulerName": "nobody", "containers": [{"name": names.CONTAINER, "image": "almanac"}]}
    cluster.client.create("pods", {"metadata": {"name": "driver", "labels": labels}, "spec": spec})
    state = {"name": names.CONTAINER, "image": "almanac", "imageID": "", "ready": True, "restartCount": 0}
    running = {"phase": "Running", "containerStatuses": [{**state, "state": {"running": {}}}]}
    cluster.client.patch("pods", "driver", {"status": running}, sub="status")
    cluster.server.call(cluster.server.logs.write, cluster.namespace, "driver", "read\nfit\n", True)
    assert list(client.logs("ledger")) == ["read", "fit"]
    assert list(client.logs("ledger", tail=1)) == ["fit"]
    threading.Timer(0.3, says, (record, "Succeeded", "Completed")).start()
    assert list(client.logs("ledger", follow=True)) == ["read", "fit"]


def test_render_fills_in_what_the_cluster_would(client: Client) -> None:
    schema = crd.definition("ForecastJob")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for job in (
        document(),
        document(model=None, spark={"driver": {"cores": 2}}),
        document(evaluation={"windows": None}),
    ):
        assert defaulted(job["spec"], schema) == client.submit(job, dry_run=True).record.spec


def test_what_is_rendered_can_be_created(client: Client, cluster: Cluster) -> None:
    record = client.submit(document(suspend=True)).record
    config_map, driver = render(document(), namespace=cluster.namespace, uid=record.uid)
    for plural, manifest in (("configmaps", config_map), ("jobs", driver)):
        assert cluster.client.create(plural, manifest)["metadata"]["labels"] == manifest["metadata"]["labels"]


def test_the_command_line(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document()))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, "--kubeconfig", str(cluster.kubeconfig)])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert run("submit", "-f", str(tmp_path / "job.yaml")).endswith(f"created in namespace {cluster.namespace}\n")
    assert run("list").splitlines()[1].split()[0] == "ledger"
    assert json.loads(run("status", "ledger", "-o", "json"))["spec"]["horizon"] == 30
    assert run("cancel", "ledger") == "forecastjob.almanac.dev/ledger suspended\n"


@pytest.mark.parametrize("clean", [True, False])
def test_a_watch_outlives_its_connection(
    client: Client, cluster: Cluster, says: Callable[..., None], clean: bool
) -> None:
    record = client.submit(document()).record
    watch = client.watch("ledger")
    next(watch)
    says(record, "Pending", "Submitted")
    assert next(watch).phase is Phase.PENDING
    cluster.server.drop_watches(clean)
    cluster.server.compact()
    says(record, "Running", "Running")
    assert next(watch).phase is Phase.RUNNING


def test_a_watch_outlives_an_outage(client: Client, cluster: Cluster, says: Callable[..., None]) -> None:
    record = client.submit(document()).record
    watch = client.watch("ledger")
    next(watch)
    with cluster.server.away():
        with Client(access=Access(cluster.url)) as other, pytest.raises(UnreachableError):
            other.status("ledger")
        threading.Timer(0.5, says, (record, "Running", "Running")).start()
    assert next(watch).phase is Phase.RUNNING


def test_without_the_kinds() -> None:
    """Of the embedded API alone: a real one is not to lose what others use."""
    with Server(Embedded()) as bare, Client(access=Access(bare.url)) as client, pytest.raises(NotInstalledError):
        client.submit(document())
