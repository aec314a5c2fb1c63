"""The client's verbs: what they ask of an API server, what they make of its answers, and how they fail."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import scripted
from almanac.api import ExitCode, ForecastJob, Phase
from almanac.client import (
    AccessDeniedError,
    AsyncClient,
    Client,
    ClientError,
    ConfigError,
    ConflictError,
    JobRecord,
    NotFoundError,
    NotInstalledError,
    Reference,
    RejectedError,
    RunFailedError,
    UnreachableError,
    WaitTimeoutError,
    aio,
    connection,
)
from almanac.kubeconfig import Access
from manifests import document
from scripted import JOBS, PODS, Broken, Server, events, missing, refusal

LEDGER = f"{JOBS}/ledger"
RUN = "20261121-021500-3f9a2c"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(aio, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(connection, "_pause", lambda *_: 0.0)
    with scripted.serve() as server:
        yield server


@pytest.fixture
def client(api: Server) -> Iterator[Client]:
    with Client(access=api.access()) as made:
        yield made


def job(
    phase: str = "", reason: str = "", version: str = "1", message: str = "so it is", **fields: Any
) -> dict[str, Any]:
    """A job as the API has it."""
    status: dict[str, Any] = fields.pop("status", {})
    if phase:
        ready = {"type": "Ready", "status": "False", "reason": reason, "message": message}
        status = {"observedGeneration": 1, "phase": phase, "conditions": [ready], "run": {"id": RUN}, **status}
    made = document(**fields)
    made["metadata"] |= {
        "namespace": "default",
        "uid": "u1",
        "generation": 1,
        "resourceVersion": version,
        "creationTimestamp": "2026-11-21T02:15:00Z",
    }
    return {**made, "status": status}


def pod(name: str, state: str, created: str = "2026-11-21T02:15:01Z", **more: Any) -> dict[str, Any]:
    """A pod of the driver in a state of its container."""
    status = {"containerStatuses": [{"name": "almanac", "state": {state: more}}]}
    return {"metadata": {"name": name, "uid": name, "creationTimestamp": created}, "status": status}


def test_both_clients_have_the_same_verbs() -> None:
    def verbs(kind: type) -> dict[str, Any]:
        found = {name: value for name, value in vars(kind).items() if inspect.isfunction(value) and name[0] != "_"}
        return {name: list(inspect.signature(value).parameters.values()) for name, value in found.items()}

    assert verbs(Client) == verbs(AsyncClient)


def test_submit_creates(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, missing("ledger"))
    api.answer("PATCH", LEDGER, (201, job()))
    submission = client.submit({**document(), "status": {"phase": "Failed"}})
    assert (submission.change, submission.record.name) == ("created", "ledger")
    [sent] = api.asked("PATCH")
    assert sent.headers["Content-Type"] == "application/apply-patch+yaml"
    assert sent.query == {"fieldManager": "almanac", "fieldValidation": "Strict", "force": "false"}
    assert sent.body == {**document(), "metadata": {"name": "ledger", "namespace": "default"}}


def test_submit_sends_what_was_set_and_nothing_else(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job()))
    api.answer("PATCH", LEDGER, (200, job()))
    assert client.submit(ForecastJob.parse(document(horizon=3))).change == "unchanged"
    [sent] = api.asked("PATCH")
    assert sent.body["spec"] == document(horizon=3)["spec"]
    read_back = {**job(), "metadata": {**job()["metadata"], "managedFields": []}}
    client.submit(read_back, dry_run=True, force=True)
    sent = api.asked("PATCH")[-1]
    assert sent.body["metadata"] == {"name": "ledger", "namespace": "default"}
    assert (sent.query["dryRun"], sent.query["force"]) == ("All", "true")


def test_submit_says_what_changed(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job("Succeeded", version="1")))
    api.answer("PATCH", LEDGER, (200, job("Succeeded", horizon=3)))
    assert client.submit(document(horizon=3)).change == "configured"


def test_namespaces_do_not_contradict_each_other(api: Server, client: Client) -> None:
    own = document()
    own["metadata"]["namespace"] = "finance"
    with pytest.raises(RejectedError, match=r"metadata\.namespace is finance, which is not default"):
        client.submit(own, namespace="default")
    with pytest.raises(NotInstalledError):
        client.submit(own)
    assert "/namespaces/finance/" in api.requests[-1].path


def test_create_refuses_what_exists(api: Server, client: Client) -> None:
    api.answer("POST", JOBS, refusal(409, "AlreadyExists", 'forecastjobs.almanac.dev "ledger" already exists'))
    with pytest.raises(ConflictError, match="already exists: submit it without --create"):
        client.submit(document(), create=True)
    assert not api.asked("GET")


def test_conflicts_name_the_way_out(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job()))
    api.answer("PATCH", LEDGER, refusal(409, "Conflict", 'conflict with "argocd": .spec.horizon'))
    with pytest.raises(ConflictError, match=r"argocd.*--force-conflicts") as caught:
        client.submit(document())
    assert caught.value.exit_code is ExitCode.FAILED


def test_rejections_have_a_line_for_each_field(api: Server, client: Client) -> None:
    causes = [
        {"field": "spec.horizon", "message": "must be at least 1", "reason": "FieldValueInvalid"},
        {"field": "<nil>", "message": "some validation rules were not checked"},
        {"field": "spec.intervals", "message": "must be different from each other"},
    ]
    api.answer("GET", LEDGER, missing("ledger"))
    api.answer("PATCH", LEDGER, refusal(422, "Invalid", "is invalid: [...]", name="ledger", causes=causes))
    with pytest.raises(RejectedError) as caught:
        client.submit(document())
    assert str(caught.value).splitlines() == [
        "spec.horizon: must be at least 1",
        "spec.intervals: must be different from each other",
    ]
    assert caught.value.exit_code is ExitCode.INVALID_JOB


def test_status(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job("Failed", "DataError", status={"engine": "local", "unknown": 1})))
    record = client.status("fj/ledger")
    assert (record.phase, record.reason, record.message) == (Phase.FAILED, "DataError", "so it is")
    assert record.finished
    assert record.exit_code is ExitCode.BAD_DATA
    with pytest.raises(RunFailedError, match="ledger failed, DataError: so it is"):
        record.raise_for_failure()


def test_an_old_status_says_nothing_of_a_new_spec(api: Server, client: Client) -> None:
    changed = job("Succeeded", "Completed")
    changed["metadata"]["generation"] = 2
    api.answer("GET", LEDGER, (200, changed))
    record = client.status("ledger")
    assert not any((record.current, record.finished, record.succeeded, record.failed, record.settled))


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((404, b"404 page not found\n"), NotInstalledError, "almanac crds | kubectl apply"),
        ((404, b"<html>nginx</html>"), UnreachableError, "answers 404: <html>nginx"),
        ((200, b"<html>log in</html>"), UnreachableError, "does not answer as Kubernetes does"),
        (
            refusal(401, "Unauthorized", "Unauthorized"),
            AccessDeniedError,
            "does not accept the kubeconfig's credentials",
        ),
        (
            refusal(
                403,
                "Forbidden",
                'forecastjobs.almanac.dev "ledger" is forbidden: User "ann" cannot get resource "forecastjobs" in API '
                'group "almanac.dev" in the namespace "default"',
            ),
            AccessDeniedError,
            "ann may not get forecastjobs.almanac.dev in namespace default: ask",
        ),
        (refusal(403, "Forbidden", "admission webhook says no"), AccessDeniedError, "admission webhook says no"),
        (refusal(500, "InternalError", "etcd is full"), UnreachableError, "answers 500: etcd is full"),
        (
            refusal(500, "", "failed to create typed patch object (...): .spec.horizonn: field not declared in schema"),
            RejectedError,
            ".spec.horizonn: field not declared in schema",
        ),
        (refusal(429, "TooManyRequests", "later"), UnreachableError, "answers 429: later"),
        ((502, b""), UnreachableError, "answers 502: it may not be a Kubernetes API"),
    ],
)
def test_refusals(api: Server, client: Client, answer: tuple[int, Any], error: type[ClientError], told: str) -> None:
    api.answer("GET", LEDGER, answer)
    with pytest.raises(error) as caught:
        client.status("ledger")
    assert told in str(caught.value)
    assert type(caught.value) is error


def test_a_busy_server_is_asked_again(api: Server, client: Client) -> None:
    busy = refusal(429, "TooManyRequests", "later")
    api.answer("GET", LEDGER, busy, busy, (200, job()))
    assert client.status("ledger").name == "ledger"
    assert len(api.requests) == 3


def test_nobody_listens() -> None:
    with Client(access=Access("http://127.0.0.1:1")) as client, pytest.raises(UnreachableError) as caught:
        client.list()
    assert "http://127.0.0.1:1 cannot be reached" in str(caught.value)
    assert caught.value.exit_code is ExitCode.UNAVAILABLE


def test_no_kubeconfig(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="nothing"):
        Client()
    (tmp_path / "wrong").write_text("[]")
    with pytest.raises(ConfigError, match="wrong"):
        Client(kubeconfig=tmp_path / "wrong")


@pytest.mark.parametrize(
    ("kind", "typed"), [("ForecastJob", "ledger"), ("AnomalyJob", "aj/ledger"), ("ExtractJob", "xj/ledger")]
)
def test_what_people_are_told_to_type_means_the_job(kind: str, typed: str) -> None:
    assert Reference("ledger", kind).typed == typed
    assert Reference.parse(typed) == Reference("ledger", kind)


def test_missing_names_the_nearest(api: Server, client: Client) -> None:
    api.answer("GET", f"{JOBS}/legder", missing("legder"))
    api.answer("GET", JOBS, (200, {"items": [job()], "metadata": {}}))
    with pytest.raises(
        NotFoundError, match=r"forecastjob\.almanac\.dev/legder in namespace default, did you mean ledger\?"
    ):
        client.status("legder")


def test_missing_names_the_kind_that_has_it(api: Server, client: Client) -> None:
    api.answer("GET", f"{JOBS}/journal", missing("journal"))
    api.answer("GET", f"{JOBS.replace('forecastjobs', 'anomalyjobs')}/journal", (200, job()))
    api.answer("GET", JOBS, (200, {"items": [], "metadata": {}}))
    with pytest.raises(NotFoundError, match=r"journal in namespace default, did you mean aj/journal\?"):
        client.status("journal")


def test_missing_names_the_namespace(api: Server, client: Client) -> None:
    elsewhere = job()
    elsewhere["metadata"]["namespace"] = "finance"
    api.answer("GET", LEDGER, missing("ledger"))
    api.answer("GET", JOBS, (200, {"items": [], "metadata": {}}))
    api.answer("GET", "/apis/almanac.dev/v1alpha1/forecastjobs", (200, {"items": [elsewhere], "metadata": {}}))
    with pytest.raises(NotFoundError, match="in namespace default: there is one in finance"):
        client.status("ledger")


def test_wait_follows_every_change(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job()))
    api.answer(
        "WATCH",
        JOBS,
        events(
            ("MODIFIED", job("Pending", "Submitted", "2")),
            ("BOOKMARK", {"metadata": {"resourceVersion": "3"}}),
            ("MODIFIED", job("Succeeded", "Completed", "4")),
        ),
    )
    seen: list[JobRecord] = []
    assert client.wait("ledger", timeout=10, on_change=seen.append).succeeded
    assert [record.phase for record in seen] == [None, Phase.PENDING, Phase.SUCCEEDED]
    [watch] = [one for one in api.requests if one.query.get("watch")]
    assert (watch.query["fieldSelector"], watch.query["resourceVersion"]) == ("metadata.name=ledger", "1")


def test_a_watch_survives_what_servers_do(api: Server, client: Client) -> None:
    expired = refusal(410, "Expired", "too old resource version")
    api.answer("GET", LEDGER, (200, job("Pending")), (200, job("Running", version="5")), (503, b""), (503, b""))
    api.answer("GET", LEDGER, (503, b""), (503, b""), (200, job("Running", version="5")))
    api.answer("WATCH", JOBS, events(("ERROR", expired[1])), (200, b""), (500, b""), expired)
    api.answer("WATCH", JOBS, events(("MODIFIED", job("Succeeded", "Completed", "6"))))
    seen: list[JobRecord] = []
    assert client.wait("ledger", timeout=20, on_change=seen.append).succeeded
    assert [record.phase for record in seen] == [Phase.PENDING, Phase.RUNNING, Phase.SUCCEEDED]


def test_a_long_outage_ends_a_watch(api: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "OUTAGE_SECONDS", 0)
    api.answer("GET", LEDGER, (200, job()))
    api.answer("WATCH", JOBS, (500, b""))
    with pytest.raises(UnreachableError):
        client.wait("ledger")


def test_wait_ends(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job("Running", "Running")))
    api.answer("WATCH", JOBS, (200, b""))
    with pytest.raises(WaitTimeoutError, match=r"ledger is not done after 0\.1 s, its phase is Running"):
        client.wait("ledger", timeout=0.1)
    api.answer("WATCH", JOBS, events(("DELETED", job())))
    with pytest.raises(NotFoundError, match="was deleted"):
        client.wait("ledger")


def test_wait_does_not_wait_for_what_is_held(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job("Suspended", "Suspended", suspend=True)))
    record = client.wait("ledger")
    assert (record.suspended, record.exit_code) == (True, ExitCode.UNAVAILABLE)


def test_results(api: Server, client: Client) -> None:
    result = {"uri": f"s3://ledger/models/runs/{RUN}", "entities": 5, "rows": 60, "scores": {"mase": 0.8}}
    api.answer(
        "GET", LEDGER, (200, job("Succeeded", "Completed", status={"result": result})), (200, job("Pending", "New"))
    )
    assert client.results("ledger").uri == result["uri"]
    with pytest.raises(NotFoundError, match="no results yet, its phase is Pending: New: so it is"):
        client.results("ledger")


def test_cancel_and_resume(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job("Running", "Running")), (200, job("Running", "Running", suspend=True)))
    api.answer("PATCH", LEDGER, (200, job(suspend=True)), (200, job()))
    assert client.cancel("ledger").suspended
    assert client.cancel("ledger").suspended
    assert not client.resume("ledger").suspended
    assert [one.body for one in api.asked("PATCH")] == [{"spec": {"suspend": True}}, {"spec": {"suspend": False}}]
    assert {one.headers["Content-Type"] for one in api.asked("PATCH")} == {"application/merge-patch+json"}


@pytest.mark.parametrize(("schedule", "patched"), [("", 0), ("@daily", 1)])
def test_cancel_leaves_what_is_over(api: Server, client: Client, schedule: str, patched: int) -> None:
    api.answer("GET", LEDGER, (200, job("Succeeded", "Completed", schedule=schedule)))
    api.answer("PATCH", LEDGER, (200, job(suspend=True)))
    client.cancel("ledger")
    assert len(api.asked("PATCH")) == patched


def test_cancel_deletes(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job()))
    api.answer("DELETE", LEDGER, (200, {"kind": "Status"}))
    client.cancel("ledger", delete=True)
    [sent] = api.asked("DELETE")
    assert sent.body["propagationPolicy"] == "Background"


def test_list_reads_every_page(api: Server, client: Client) -> None:
    other = job()
    other["metadata"]["name"] = "a"
    api.answer("GET", JOBS, (200, {"items": [job()], "metadata": {"continue": "c"}}), (200, {"items": [other]}))
    assert [record.name for record in client.list(selector="team=finance")] == ["a", "ledger"]
    assert [one.query.get("continue") for one in api.requests if one.path == JOBS] == [None, "c"]
    assert {one.query["labelSelector"] for one in api.requests} == {"team=finance"}


def test_list_begins_anew_where_its_pages_expire(api: Server, client: Client) -> None:
    api.answer("GET", JOBS, (200, {"items": [job()], "metadata": {"continue": "c"}}), refusal(410, "Expired", "old"))
    api.answer("GET", JOBS, (200, {"items": [job()], "metadata": {}}))
    assert len(client.list()) == 1
    assert "limit" not in [one for one in api.requests if one.path == JOBS][-1].query


def test_logs_of_the_last_attempt(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, (200, job("Failed", "DataError")))
    later = pod("second", "terminated", "2026-11-21T02:16:00Z")
    api.answer("GET", PODS, (200, {"items": [later, pod("first", "terminated")]}))
    api.answer("GET", f"{PODS}/second/log", (200, "fit\nwriting é\n\nno end".encode()))
    assert list(client.logs("ledger", tail=5)) == ["fit", "writing é", "", "no end"]
    assert api.requests[-1].query == {"container": "almanac", "follow": "false", "tailLines": "5"}
    assert f"almanac.dev/run={RUN}" in api.requests[-2].query["labelSelector"]


def test_logs_follow_every_attempt_to_the_end(api: Server, client: Client) -> None:
    api.answer("GET", LEDGER, *[(200, job("Running", "Running"))] * 4, (200, job("Succeeded", "Completed")))
    first, second = pod("first", "terminated"), pod("second", "running", "2026-11-21T02:16:00Z")
    waits = pod("second", "waiting", "2026-11-21T02:16:00Z", reason="ContainerCreating")
    api.answer("GET", PODS, (200, {"items": []}), (200, {"items": [first, waits]}), (200, {"items": [first, second]}))
    api.answer("GET", f"{PODS}/first/log", (200, b"2026-11-21T02:15:09Z one\n"))
    api.answer("GET", f"{PODS}/second/log", (200, b"2026-11-21T02:15:10.5Z two\n"))
    assert list(client.logs("ledger", follow=True)) == ["one", "two"]


def test_logs_go_on_where_a_stream_broke(api: Server, client: Client) -> None:
    """Three lines of one moment, of which the stream brought two: the server repeats what is of the same second."""
    api.answer("GET", LEDGER, *[(200, job("Running", "Running"))] * 3, (200, job("Succeeded", "Completed")))
    running, ended = pod("first", "running"), pod("first", "terminated")
    api.answer("GET", PODS, *[(200, {"items": [running]})] * 3, (200, {"items": [ended]}))
    at = "2026-11-21T02:15:09"
    begin = f"{at}Z read\n{at}.05Z a\n{at}.05Z b\n".encode()
    rest = begin + f"{at}.05Z b\n{at}.123456789Z fit\n".encode()
    gone = b"unable to retrieve container logs for containerd://65bda287"
    api.answer("GET", f"{PODS}/first/log", (200, Broken(begin)), (503, b"no"), (200, rest), (200, gone))
    assert list(client.logs("ledger", follow=True, tail=7)) == ["read", "a", "b", "b", "fit"]
    asked = [one.query for one in api.requests if one.path.endswith("/log")]
    assert [(one.get("sinceTime"), one.get("tailLines")) for one in asked] == [(None, "7"), *[(f"{at}Z", None)] * 3]


@pytest.mark.parametrize(
    ("now", "items", "run", "told"),
    [
        (job(), [], None, "has had no run yet, its phase is none"),
        (job("Pending", "Submitted"), [], None, "has no pod yet: Submitted: so it is"),
        (
            job("Pending", "ImagePullBackOff"),
            [pod("first", "waiting", reason="ImagePullBackOff", message="no such image")],
            None,
            "pod first of forecastjob.almanac.dev/ledger has not started: ImagePullBackOff: no such image",
        ),
        (job("Succeeded", "Completed"), [], None, f"the pods of run {RUN} are gone"),
        (job("Succeeded", "Completed"), [], "x", f"knows of no run x: there are {RUN}"),
    ],
)
def test_no_logs(
    api: Server, client: Client, now: dict[str, Any], items: list[Any], run: str | None, told: str
) -> None:
    api.answer("GET", LEDGER, (200, now))
    api.answer("GET", PODS, (200, {"items": items}))
    with pytest.raises(ClientError, match=told):
        list(client.logs("ledger", run=run))


def test_asyncio(api: Server) -> None:
    api.answer("GET", LEDGER, (200, job("Running", "Running")))
    api.answer("WATCH", JOBS, events(("MODIFIED", job("Succeeded", "Completed", "2"))))

    async def phases() -> list[Phase | None]:
        async with AsyncClient(access=api.access(), namespace="default") as client:
            return [record.phase async for record in _until_settled(client)]

    assert asyncio.run(phases()) == [Phase.RUNNING, Phase.SUCCEEDED]


async def _until_settled(client: AsyncClient) -> Any:
    async for record in client.watch("ledger"):
        yield record
        if record.settled:
            return


def test_within_a_running_loop(api: Server) -> None:
    """As in a notebook."""
    api.answer("GET", LEDGER, (200, job()))

    async def cell() -> str:
        with Client(access=api.access()) as client:
            return client.status("ledger").name

    assert asyncio.run(cell()) == "ledger"


def test_a_client_can_be_used_again_after_it_was_closed(api: Server) -> None:
    api.answer("GET", LEDGER, (200, job()))
    client = Client(access=api.access())
    for _ in range(2):
        assert client.status("ledger").name == "ledger"
        client.close()


@pytest.mark.parametrize(
    "text", ["fj/ledger", "forecastjobs/ledger", "ForecastJob/ledger", "forecastjob.almanac.dev/ledger"]
)
def test_references(text: str) -> None:
    assert Reference.parse(text) == Reference("ledger", "ForecastJob")


@pytest.mark.parametrize(
    "call", [lambda c: c.status("pod/x"), lambda c: c.status(""), lambda c: c.submit({"kind": "Pod"})]
)
def test_nonsense_is_refused_before_it_is_sent(api: Server, client: Client, call: Callable[[Client], Any]) -> None:
    with pytest.raises(RejectedError):
        call(client)
    assert not api.requests
