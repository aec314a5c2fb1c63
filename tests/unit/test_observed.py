"""Facts of drivers and pods: why one does not run, how one ended, and what is not ours to look at."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import goldens
import raw
from almanac import names, observed, troubles
from almanac.api import Engine, Reason, Report, Trigger
from almanac.observed import Driver, Pod
from almanac.tolerant import tolerant

DRIVER = raw.driver()
RUN = DRIVER["metadata"]["labels"][names.RUN]


def seen(one: raw.Raw) -> Driver:
    found = observed.driver(one)
    assert found is not None
    return found


def pod(**status: Any) -> Pod:
    found = observed.pod(raw.pod(DRIVER, **status))
    assert found is not None
    return found


def test_a_driver_tells_its_run_by_its_labels() -> None:
    found = seen(DRIVER)
    assert (found.run, found.number, found.engine, found.trigger) == (RUN, 1, Engine.LOCAL, Trigger.SPEC)
    assert (found.restart_nonce, found.attempt, found.job_uid) == (0, 1, goldens.UID)
    assert found.spec_hash == goldens.job(goldens.document("smallest")).spec.hash
    assert found.active


@pytest.mark.parametrize(
    ("conditions", "succeeded", "reason"),
    [
        (
            [raw.condition("Complete", "CompletionsReached"), raw.condition("SuccessCriteriaMet")],
            True,
            "CompletionsReached",
        ),
        ([raw.condition("Failed", "BackoffLimitExceeded")], False, "BackoffLimitExceeded"),
    ],
)
def test_outcomes(conditions: list[raw.Raw], succeeded: bool, reason: str) -> None:
    found = seen(raw.driver(conditions=conditions))
    assert found.outcome == observed.Outcome(succeeded, reason, "", raw.CREATED)
    assert not found.active


@pytest.mark.parametrize(
    "conditions",
    [
        [],
        [raw.condition("FailureTarget", "PodFailurePolicy")],
        [raw.condition("SuccessCriteriaMet")],
        [raw.condition("Complete", status="False")],
    ],
)
def test_what_is_not_over_yet(conditions: list[raw.Raw]) -> None:
    assert seen(raw.driver(conditions=conditions)).active


def suspended(held: bool) -> raw.Raw:
    made = raw.driver(conditions=[raw.condition("Suspended", "JobSuspended")])
    made["spec"]["suspend"] = True
    if held:
        made["metadata"]["annotations"][names.SUSPENDED] = "true"
    return made


@pytest.mark.parametrize("held", [True, False])
def test_who_suspended_it(held: bool) -> None:
    found = seen(suspended(held))
    assert (found.suspended, found.held, found.started) == (True, held, None)


def test_when_a_driver_was_taken_up() -> None:
    later = raw.CREATED + timedelta(hours=3)
    assert seen(raw.driver()).started == raw.CREATED
    assert seen(raw.driver(startTime=raw.time(later))).started == later
    woken = suspended(held=False)
    woken["spec"]["suspend"] = False
    assert seen(woken).started is None, "the Job controller has not seen it yet"
    woken["status"]["conditions"] = [raw.condition("Suspended", "JobResumed", status="False", at=later)]
    assert seen(woken).started == later


@pytest.mark.parametrize(
    "change",
    [
        {"ownerReferences": []},
        {"labels": {}},
        {"labels": DRIVER["metadata"]["labels"] | {names.RUN_NUMBER: "0"}},
        {"labels": DRIVER["metadata"]["labels"] | {names.RUN_NUMBER: "x"}},
        {"labels": DRIVER["metadata"]["labels"] | {names.ENGINE: "abacus"}},
    ],
)
def test_other_jobs_are_not_ours(change: raw.Raw) -> None:
    assert observed.driver(DRIVER | {"metadata": DRIVER["metadata"] | change}) is None


def test_other_pods_are_not_ours() -> None:
    stray = raw.pod(DRIVER)
    stray["metadata"]["ownerReferences"] = []
    assert observed.pod(stray) is None


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (raw.waiting("ImagePullBackOff", 'Back-off pulling image "x"'), "ImagePullBackOff", "Back-off"),
        (raw.waiting("ErrImagePull", "rpc error: not found"), "ImagePullBackOff", "not found"),
        (raw.waiting("InvalidImageName", "couldn't parse"), "InvalidImageName", "parse"),
        (
            raw.waiting("CreateContainerConfigError", 'secret "ledger-s3" not found'),
            "CreateContainerConfigError",
            "ledger-s3",
        ),
        (raw.waiting("weird reason!", "words"), "Waiting", "words"),
        (
            {"initContainerStatuses": [raw.container("fetch", waiting={"reason": "ErrImagePull", "message": "no"})]},
            "ImagePullBackOff",
            "no",
        ),
        (
            {
                "conditions": [
                    raw.condition(
                        "PodScheduled", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.", "False"
                    )
                ]
            },
            "Unschedulable",
            "0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            {"conditions": [raw.condition("PodScheduled", "SchedulingGated", "gated", "False")]},
            "SchedulingGated",
            "gated",
        ),
    ],
)
def test_why_a_pod_does_not_run(status: raw.Raw, reason: str, words: str) -> None:
    found = pod(**status)
    assert found.waiting
    assert found.trouble is not None
    assert found.trouble.reason == reason
    assert words in found.trouble.message


@pytest.mark.parametrize(
    "status",
    [
        {},
        raw.waiting("ContainerCreating"),
        raw.waiting("PodInitializing"),
        {"conditions": [raw.condition("PodScheduled")]},
    ],
)
def test_a_pod_that_is_starting_is_in_no_trouble(status: raw.Raw) -> None:
    found = pod(**status)
    assert found.waiting
    assert found.trouble is None


def test_a_pod_that_runs() -> None:
    found = pod(**raw.running())
    assert (found.running, found.waiting, found.ip) == (True, False, "10.0.0.7")
    leaving = raw.pod(DRIVER, **raw.running())
    leaving["metadata"]["deletionTimestamp"] = raw.time(raw.CREATED)
    going = observed.pod(leaving)
    assert going is not None
    assert not going.running


DISRUPTED = raw.condition("DisruptionTarget", "PreemptionByScheduler", "preempted for a pod of higher priority")
FAILED = raw.failure(RUN, Reason.DATA_ERROR, "spec.source.columns.value: `amount` is not a number")


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (raw.terminated(0, raw.success(RUN), "Completed"), 0, "Completed", "could not be deleted"),
        (raw.terminated(65, FAILED), 65, "DataError", "`amount` is not a number"),
        (raw.terminated(137, "", "OOMKilled"), 137, "OOMKilled", "limit of 4Gi"),
        (raw.terminated(1, "Traceback\n  ImportError: x"), 1, "Error", "exit code 1: Traceback ImportError: x"),
        (raw.terminated(128, "exec failed", "StartError"), 128, "StartError", "exec failed"),
        (raw.terminated(143) | {"conditions": [DISRUPTED]}, 143, "Preempted", "higher priority"),
        (raw.terminated(130, FAILED) | {"conditions": [DISRUPTED]}, 130, "Preempted", "higher priority"),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            None,
            "Evicted",
            "low on resource",
        ),
        (
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no"},
            None,
            "UnexpectedAdmissionError",
            "no",
        ),
        (
            {
                "phase": "Failed",
                "initContainerStatuses": [raw.container("fetch", terminated={"exitCode": 3, "reason": "Error"})],
                "containerStatuses": [raw.container(waiting={"reason": "PodInitializing"})],
            },
            None,
            "Error",
            "container fetch ended with exit code 3",
        ),
    ],
)
def test_how_a_pod_ended(status: raw.Raw, code: int | None, reason: str, words: str) -> None:
    ended = pod(**status).exit
    assert ended is not None
    assert (ended.code, ended.reason) == (code, reason)
    assert words in ended.message


def test_a_report_of_another_version_counts_as_far_as_it_is_understood() -> None:
    message = raw.document_of(raw.success(RUN))
    message |= {"invented": 1}
    message["result"] |= {"later": {"x": 1}, "failedEntities": "two"}
    report = troubles.read_report(json.dumps(message))
    assert report is not None
    assert report.result is not None
    assert (report.result.entities, report.result.failed_entities) == (5, 0)


def test_scores_that_are_no_numbers_are_left_out() -> None:
    """They cannot be written into a status."""
    message = raw.document_of(raw.success(RUN))
    message["result"]["scores"] = {"mase": float("nan"), "smape": 0.1, "bias": float("inf")}
    report = troubles.read_report(json.dumps(message))
    assert report is not None
    assert report.result is not None
    assert report.result.scores == {"smape": 0.1}


@pytest.mark.parametrize("message", ["", "Killed", "{", "[1]", '{"run": 1}', "{" * 5000, None, 5])
def test_what_is_no_report(message: object) -> None:
    assert troubles.read_report(message) is None


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_any_termination_message_can_be_read(message: str) -> None:
    ended = pod(**raw.terminated(1, message)).exit
    assert ended is not None
    assert ended.reason
    assert len(ended.message) <= troubles.MESSAGE_LENGTH


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            'pods "x" is forbidden: exceeded quota: compute, requested: cpu=1, used: cpu=4, limited: cpu=4',
            "QuotaExceeded",
        ),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": x', "PodSecurityViolation"),
        ('Error creating: admission webhook "policy" denied the request', "FailedCreate"),
    ],
)
def test_warnings(message: str, reason: str) -> None:
    warned = observed.warning(raw.event(DRIVER, "FailedCreate", message))
    assert warned is not None
    assert warned.about == DRIVER["metadata"]["uid"]
    assert troubles.of_warning(warned.reason, warned.message) == troubles.Trouble(reason, message)


def test_a_pod_without_a_node_has_one_reason_whoever_says_so() -> None:
    told = troubles.of_warning("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu.")
    assert told == troubles.Trouble("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")


def test_events_of_both_apis_are_read() -> None:
    old = raw.event(DRIVER, "FailedMount", "no secret")
    new = {key: old[key] for key in ("type", "metadata", "reason")}
    new |= {"regarding": old["involvedObject"], "note": "no secret", "eventTime": "2026-11-21T02:15:01.000000Z"}
    assert observed.warning(old) == observed.warning(new)
    assert observed.warning(old | {"type": "Normal"}) is None


def test_observe_sorts_objects_by_kind() -> None:
    objects = [DRIVER, raw.pod(DRIVER), raw.event(DRIVER, "x", "y"), {"kind": "Service", "metadata": {"name": "x"}}]
    found = observed.observe(objects)
    assert (len(found.drivers), len(found.pods), len(found.warnings or ())) == (1, 1, 1)
    assert found.of(goldens.UID).pods_of(found.drivers[0]) == found.pods
    assert found.of("another").drivers == ()


def test_pods_of_a_driver_that_was_made_anew_are_its_own() -> None:
    anew = raw.driver()
    anew["metadata"] |= {"uid": "second"}
    found = observed.observe([anew, raw.pod(DRIVER), raw.pod(anew, name="b")])
    assert [one.name[-1] for one in found.pods_of(found.drivers[0])] == ["b"]


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from([*Report.model_fields, "x"]), inside),
)


@given(documents)
def test_tolerant_reading_never_fails(document: object) -> None:
    found = tolerant(Report, document)
    assert found is None or isinstance(found, Report)
