"""An operator that lacks rights, at its start or later: before a Kubernetes API, embedded and real."""

from __future__ import annotations

import functools
import logging
from typing import Any

import pytest

import anomalies
from almanac import handlers, leader, rights
from almanac.api import Phase
from almanac.leader import Timing
from kube.cluster import Cluster
from matrix import Group, Moment, cell
from operators import Ledger, Operator
from rights import Account, refused

LEASE = "almanac-operator"


@pytest.fixture(autouse=True)
def at_once(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is asked for again at once, and a Lease that is not renewed is free after a second or two."""
    monkeypatch.setattr(rights, "CHECK_EVERY", 0.1)
    monkeypatch.setattr(leader, "Timing", functools.partial(Timing, duration=2, deadline=1.0, interval=0.1))


@pytest.fixture
def account(cluster: Cluster) -> Account:
    return Account(cluster)


def operator_of(cluster: Cluster, account: Account, identity: str = "a", **settings: Any) -> Operator:
    return Operator(cluster, account.token, namespace=account.home, lease=LEASE, identity=identity, **settings)


def says(operator: Operator, page: str) -> str:
    reply = operator.get(page)
    return reply.text if reply is not None else ""


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the operator's own modules have logged as errors."""
    ours = [one for one in caplog.records if one.name.startswith("almanac.")]
    return [one.getMessage() for one in ours if one.levelno >= logging.ERROR]


@cell(
    Group.OPERATOR,
    "A right is missing when the operator starts",
    Moment.BEFORE,
    "It is not ready, says which right and what to do, and leaves the Lease alone; it begins once the right is there.",
)
@pytest.mark.parametrize(
    ("right", "said"),
    [
        ("list anomalyjobs", "list anomalyjobs.almanac.dev in namespace {watched}"),
        ("watch pods", "watch pods in namespace {watched}"),
        ("patch forecastjobs/status", "patch forecastjobs.almanac.dev/status in namespace {watched}"),
        ("create jobs", "create jobs.batch in namespace {watched}"),
        ("update leases", "update leases.coordination.k8s.io in namespace {home}"),
    ],
)
def test_at_the_start(
    cluster: Cluster, ledger: Ledger, account: Account, right: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"this operator may not {said.format(watched=cluster.namespace, home=account.home)}: upgrade the chart"
    ledger.submit()
    with account.without(right):
        with operator_of(cluster, account) as operator:
            cluster.wait(lambda: said in says(operator, "readyz"), "the operator to say what it lacks")
            reply = operator.get("healthz")
            assert reply is not None
            assert reply.ok
            verb, _, what = right.partition(" ")
            (missing,) = [name for name in operator.metrics if name.startswith("almanac_missing_rights")]
            assert f'verb="{verb}"' in missing
            assert what.partition("/")[0] in missing
            (error,) = errors(caplog)
            assert error.startswith(said)
            assert not operator.leads
            assert cluster.client.find("leases", LEASE, namespace=account.home) is None
            operator.stop()
        assert not ledger.drivers
    with operator_of(cluster, account):
        ledger.run()


@cell(
    Group.OPERATOR,
    "A right is missing when the operator starts, and is given later",
    Moment.BEFORE,
    "It begins by itself.",
)
def test_given_later(cluster: Cluster, ledger: Ledger, account: Account, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ledger.submit()
    with operator_of(cluster, account) as operator:
        with account.without("patch forecastjobs/status", "create jobs"):
            operator.stop()
            operator.start()
            cluster.wait(lambda: "may not" in says(operator, "readyz"), "the operator to say what it lacks")
        cluster.wait(lambda: operator.ready and operator.leads, "the operator to lead")
        assert "no right is missing any more" in caplog.messages
        ledger.run()


@cell(
    Group.OPERATOR,
    "A new version of the operator lacks a right that the old one has",
    Moment.WHILE,
    "The old one goes on. The new one does not even take the Lease when that is free.",
)
def test_beside_one_that_has_them(cluster: Cluster, ledger: Ledger, account: Account) -> None:
    """Kubernetes keeps the old one as long as the new one is not ready."""
    token = account.another_token()
    with operator_of(cluster, account, "old") as old:
        cluster.wait(lambda: old.leads, "the old operator to lead")
        with (
            refused(cluster, token, "list anomalyjobs"),
            Operator(cluster, token, namespace=account.home, lease=LEASE, identity="new") as new,
        ):
            cluster.wait(lambda: "anomalyjobs" in says(new, "readyz"), "the new operator to say what it lacks")
            ledger.submit()
            ledger.run()
            old.stop()
            with new.hurried(60) as over:
                over()  # whoever had the Lease last has it no longer
            assert cluster.client.get("leases", LEASE, namespace=account.home)["spec"].get("holderIdentity") != "new"
            assert not new.leads


@cell(
    Group.OPERATOR,
    "A namespace of several that the operator watches is gone when it starts, and comes back",
    Moment.BEFORE,
    "It says so, and goes on with the others. When it is there again, and its Role, its jobs are run too.",
)
def test_a_namespace_that_is_gone(
    cluster: Cluster, ledger: Ledger, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    sales = cluster.make_namespace()
    with operator_of(cluster, account, namespaces=(cluster.namespace, sales)) as operator:
        with account.closed(sales):
            operator.stop()
            operator.start()
            cluster.wait(lambda: operator.ready and operator.leads, "the operator to lead")
            ledger.live()
            ledger.has_ended()
            assert operator.metrics['almanac_missing_rights{resource="pods",verb="list"}'] == 1
        assert errors(caplog)[-1].startswith(f"this operator may do nothing in namespace {sales}, and goes on with")
        cluster.client.namespace = sales
        with operator.hurried(60):
            ledger.live()
        ledger.has_ended()


@cell(
    Group.OPERATOR,
    "The operator loses its rights on one kind of job",
    Moment.WHILE,
    "It says so and is not ready, stays alive, and goes on with the others; what it has missed it finds later.",
)
def test_lost_for_one_kind(
    cluster: Cluster,
    ledger: Ledger,
    account: Account,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "DEAD", 2.0)
    entries = Ledger(cluster, anomalies.document)
    with operator_of(cluster, account) as operator:
        cluster.wait(lambda: operator.leads, "the operator to lead")
        with account.without("get anomalyjobs", "list anomalyjobs", "watch anomalyjobs", "patch anomalyjobs/status"):
            cluster.server.drop_watches()
            path = f"/apis/almanac.dev/v1alpha1/namespaces/{cluster.namespace}/anomalyjobs"
            cluster.wait(lambda: "anomalyjobs" in says(operator, "readyz"), "the operator to say what it lacks")
            cluster.wait(lambda: "/extractjobs has heard" in says(operator, "healthz"), "silence to count as death")
            assert "get, list, watch anomalyjobs.almanac.dev in" in says(operator, "readyz")
            assert "patch anomalyjobs.almanac.dev/status in" in says(operator, "readyz")
            assert path not in says(operator, "healthz")
            entries.submit()
            ledger.live()
            ledger.has_lived()
            assert operator.leads
            assert path not in says(operator, "healthz")
            assert not [name for name in operator.metrics if name.endswith(f'{{path="{path}"}}')]
            assert not entries.drivers
            assert any(one.startswith("this operator may not get, list, watch anomalyjobs") for one in errors(caplog))
        with operator.hurried(60):
            entries.run()
        cluster.wait(lambda: operator.ready, "the operator to be ready")


@cell(
    Group.OPERATOR,
    "The operator loses its right to read pods",
    Moment.WHILE,
    "It says so and is not ready. What it cannot know it does not guess: the end of the run is told once it can.",
)
def test_lost_for_pods(cluster: Cluster, ledger: Ledger, account: Account) -> None:
    with operator_of(cluster, account) as operator:
        ledger.submit()
        ledger.run()
        with account.without("list pods", "watch pods"):
            cluster.server.drop_watches()
            cluster.wait(lambda: "list, watch pods in" in says(operator, "readyz"), "the operator to say what it lacks")
            ledger.succeed()
            cluster.wait(lambda: forbidden(operator) > 0, "the operator to look for the driver's pod")
            assert ledger.told[:2] == (Phase.RUNNING, "Running")
        with operator.hurried(60):
            ledger.until(Phase.SUCCEEDED, "Completed")
        ledger.has_ended()


def test_rights_that_only_some_runs_need(cluster: Cluster, ledger: Ledger, account: Account) -> None:
    """Without those for Spark, Dask and events, the operator is ready, and runs in one pod have their whole life."""
    cluster.needs_controllers()
    with account.without("list events", "create events"), operator_of(cluster, account) as operator:
        cluster.wait(lambda: operator.ready and operator.leads, "the operator to lead")
        ledger.live()
        ledger.has_ended()
        silent = Ledger(cluster, anomalies.document)
        silent.submit(startDeadlineSeconds=1)
        assert "spec.startDeadlineSeconds" in silent.until(Phase.FAILED, "StartDeadlineExceeded")


def forbidden(operator: Operator) -> float:
    return operator.metrics.get('almanac_reconcile_errors_total{kind="ForecastJob",reason="Forbidden"}', 0.0)
