"""Executors of runs on Spark before a Kubernetes API, embedded and real: tests play what a driver and a kubelet do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import raw
from almanac import executing
from almanac.api import Phase
from kube.cluster import Cluster
from kube.waiting import eventually
from matrix import Group, Moment, cell
from operators import Ledger, Operator, play

Raw = dict[str, Any]

GONE = "They go with it. Another pod follows, of the same driver and run, with executors of its own."


class Spark:
    """The driver of a run in its pod, and its executors."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self.client, self.kubelet, self.ledger = cluster.client, cluster.kubelet, ledger
        self.start()

    def start(self, but: tuple[str, ...] = ()) -> None:
        """Let the driver run in its newest pod."""
        self.pod = self.ledger.pod(but)
        self.kubelet.run(self.pod)
        self.ledger.until(Phase.RUNNING, "Running")

    def executor(self, name: str, *, runs: bool = True) -> str:
        """Let the driver have an executor; the name of its pod."""
        of = self.client.get("pods", self.pod)
        return play(self.client, self.kubelet, raw.executor(of, name=name), runs=runs)

    @property
    def executors(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.client.list("pods", labels="spark-role=executor")]

    def tells(self, words: str) -> None:
        """Wait until the status has this to say of the executor that failed last."""
        eventually(lambda: words in (self.ledger.status.get("workers") or {}).get("message", ""), words)

    def goes_on(self) -> None:
        """It is the one run with the one driver still, and ends well."""
        self.ledger.succeed()
        self.ledger.until(Phase.SUCCEEDED, "Completed")
        assert [one["reason"] for one in self.ledger.status["history"]] == ["Completed"]


@pytest.fixture
def spark(cluster: Cluster, operator: Operator, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Spark:
    """The run of the job `ledger`, whose driver runs; the operator loses its patience with executors at once."""
    cluster.needs_controllers()
    for name in ("PATIENCE", "ASK_EVERY"):
        monkeypatch.setattr(executing, name, timedelta(seconds=0.2))
    ledger.submit(engine="spark")
    return Spark(cluster, ledger)


@cell(
    Group.CLUSTERS,
    "An executor of Spark is lost",
    Moment.WHILE,
    "The run goes on, and the status says how it ended: one run, one driver.",
)
@pytest.mark.parametrize(("how", "said"), [("out_of_memory", "OOMKilled"), ("evict", "Evicted")])
def test_an_executor_that_is_lost(spark: Spark, how: str, said: str) -> None:
    spark.executor("exec-1")
    getattr(spark.kubelet, how)(spark.executor("exec-2"))
    spark.tells(said)
    spark.executor("exec-3")
    assert spark.ledger.told[:2] == (Phase.RUNNING, "Running")
    spark.goes_on()
    assert len(spark.ledger.drivers) == 1


@cell(
    Group.CLUSTERS,
    "All executors of Spark are lost, and there is no room for others",
    Moment.WHILE,
    "Running, with what lacks and why; once an executor is there it goes on: one run, one driver.",
)
def test_all_executors_are_lost(spark: Spark) -> None:
    for name in ("exec-1", "exec-2"):
        spark.kubelet.evict(spark.executor(name))
    third = spark.executor("exec-3", runs=False)
    spark.kubelet.unschedulable(third)
    told = spark.ledger.until(Phase.RUNNING, "Unschedulable")
    assert told.startswith("none of its executors is running: 0/3 nodes are available")
    spark.kubelet.run(third)
    spark.ledger.until(Phase.RUNNING, "Running")
    spark.goes_on()


@cell(
    Group.CLUSTERS,
    "No executor of Spark finds room, for longer than startDeadlineSeconds",
    Moment.WHILE,
    "Failed, with the reason that it waited for; driver and executors go.",
)
def test_no_executor_in_time(spark: Spark) -> None:
    spark.ledger.edit(startDeadlineSeconds=2)
    spark.kubelet.unschedulable(spark.executor("exec-1", runs=False))
    told = spark.ledger.until(Phase.FAILED, "Unschedulable")
    assert told.startswith("none of its executors is running after 2 s (spec.startDeadlineSeconds): 0/3 nodes")
    eventually(lambda: not spark.ledger.drivers and not spark.executors, "driver and executors to go")


@cell(Group.CLUSTERS, "The driver's pod is lost, its executors of Spark are there", Moment.WHILE, GONE)
def test_a_driver_that_is_lost_while_executors_are_there(spark: Spark) -> None:
    before, first = spark.executor("exec-1"), spark.pod
    spark.kubelet.lose_node(first)
    eventually(lambda: before not in spark.executors, "executors to go with their driver")
    spark.start(but=(first,))
    spark.executor("exec-1")
    spark.goes_on()
    assert len(spark.ledger.drivers) == 1


@cell(
    Group.CLUSTERS,
    "The driver (the Job) is deleted, its executors of Spark are there",
    Moment.WHILE,
    "They go with it. It is created once more, and says so, with executors of its own.",
)
def test_a_driver_that_is_deleted_while_executors_are_there(spark: Spark) -> None:
    before = spark.executor("exec-1")
    spark.client.delete("jobs", spark.ledger.driver["metadata"]["name"])
    spark.ledger.until(Phase.PENDING, "Recreated")
    eventually(lambda: before not in spark.executors, "executors to go with their driver")
    spark.start()
    spark.executor("exec-1")
    spark.goes_on()
