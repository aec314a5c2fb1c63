"""Why a pod does not run, and how one ended, in Kubernetes' own words where it has some. Reads plain dicts; pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from almanac import names
from almanac.api import Report
from almanac.tolerant import tolerant

Raw = Mapping[str, Any]

MESSAGE_LENGTH = 1024
"""Characters of a message that are kept: as much as an Event may carry."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps something from running. `reason` is one CamelCase word."""

    reason: str
    message: str
    vague: bool = False
    """The message says less than an earlier one with the same reason may have said."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a pod ended. `report` is there where the driver had the time to write one."""

    code: int | None
    reason: str
    message: str
    report: Report | None = None
    time: datetime | None = None


def word(reason: object, otherwise: str) -> str:
    """A reason as conditions and events take it; what is no such word becomes `otherwise`."""
    return reason if isinstance(reason, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,127}", reason) else otherwise


def plain(text: object, length: int = MESSAGE_LENGTH) -> str:
    """Words of others on one line, cut to what a message may hold."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def moment(text: object) -> datetime | None:
    """A time as the API writes it; None for what is none."""
    try:
        read = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read is not None and read.tzinfo is None else read


def running(pod: Raw) -> bool:
    """Whether the container that computes runs, in a pod that is not about to go."""
    state = _state(_main(pod))
    return "running" in state and "deletionTimestamp" not in pod["metadata"]


def ready(pod: Raw) -> bool:
    """Whether the container that computes answers, as far as it is asked whether it does."""
    return bool(_main(pod).get("ready"))


def restarts(pod: Raw) -> int:
    """How often the container that computes was started again."""
    return int(_main(pod).get("restartCount") or 0)


def initializing(pod: Raw) -> str:
    """Name of the init container that runs; empty where none does, or the pod computes already."""
    if "running" in _state(_main(pod)):
        return ""
    found = (one for one in pod.get("status", {}).get("initContainerStatuses") or () if "running" in _state(one))
    return str(next((one.get("name") for one in found), ""))


def leaving(pod: Raw) -> str:
    """Why a pod that is being deleted is: in the words of whoever in the cluster takes it away, if anybody says so."""
    if "deletionTimestamp" not in pod["metadata"]:
        return ""
    gone = _disruption(pod.get("status", {}))
    return f"{gone.reason}: {gone.message}" if gone else "somebody has deleted it"


def of_pod(pod: Raw) -> Trouble | None:
    """What keeps a pod from running, if it says so by itself."""
    for status in _containers(pod):
        waiting = _state(status).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return _waiting(str(waiting["reason"]), plain(waiting.get("message")))
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Trouble(word(condition.get("reason"), "Unschedulable"), plain(condition.get("message")))
    return None


def _waiting(reason: str, message: str) -> Trouble:
    """A waiting container. Pulling an image alternates between two reasons, of which one has the details."""
    if reason == "ErrImagePull":
        return Trouble("ImagePullBackOff", message)
    vague = reason == "ImagePullBackOff" and "ErrImagePull" not in message
    return Trouble(word(reason, "Waiting"), message, vague)


def of_warning(reason: str, message: str) -> Trouble:
    """What a warning event says, by a reason of its own where Kubernetes has one word for many things."""
    message = message.removeprefix("(combined from similar events): ")
    for part, better in (("exceeded quota", "QuotaExceeded"), ("violates PodSecurity", "PodSecurityViolation")):
        if part in message:
            return Trouble(better, plain(message))
    if reason == "FailedScheduling":  # the pod's own condition calls it so
        return Trouble("Unschedulable", plain(message))
    return Trouble(word(reason, "Warning"), plain(message))


def exit_of(pod: Raw) -> Exit | None:
    """How a pod ended; None while it has not."""
    status = pod.get("status", {})
    ended = _state(_main(pod)).get("terminated")
    if ended is None and status.get("phase") not in ("Failed", "Succeeded"):
        return None
    ended = ended or {}
    code, time = ended.get("exitCode"), moment(ended.get("finishedAt"))
    report = read_report(ended.get("message"))
    gone = _disruption(status)
    if report is not None and not (gone and code != 0):
        return Exit(code, report.reason, plain(report.message), report, time)
    if gone:
        return Exit(code, gone.reason, gone.message, report, time)
    return _bare_exit(pod, ended, code, time)


def last_exit(pod: Raw) -> Exit | None:
    """How the container that computes ended the last time that it failed, where it is started again."""
    main = _main(pod)
    ended = _state(main).get("terminated") or (main.get("lastState") or {}).get("terminated") or {}
    code, lines = ended.get("exitCode"), str(ended.get("message") or "").strip().splitlines()
    told = {**ended, "message": lines[-1]} if lines else ended  # of a log, the last line says why
    return _bare_exit(pod, told, code, moment(ended.get("finishedAt"))) if code else None


def _bare_exit(pod: Raw, ended: Raw, code: int | None, time: datetime | None) -> Exit:
    """An end that the driver could not tell of."""
    if code is None:
        for status in _containers(pod):
            terminated = _state(status).get("terminated") or {}
            if terminated.get("exitCode"):
                said = plain(f"container {status.get('name')} {_said(terminated)}")
                return Exit(
                    None, word(terminated.get("reason"), "Error"), said, None, moment(terminated.get("finishedAt"))
                )
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod)
        message = f"the {_component(pod)} needed more memory than its limit{limit}: {_raise(pod)}"
        return Exit(code, "OOMKilled", message, None, time)
    status = pod.get("status", {})
    if code is None:
        return Exit(None, word(status.get("reason"), "Error"), plain(status.get("message")), None, time)
    return Exit(code, word(ended.get("reason"), "Error"), plain(f"the {_component(pod)} {_said(ended)}"), None, time)


def _component(pod: Raw) -> str:
    """What a pod is of a run."""
    return str(_labels(pod).get(names.COMPONENT) or names.DRIVER)


def _raise(pod: Raw) -> str:
    """How a pod gets more memory."""
    engine, component = _labels(pod).get(names.ENGINE), _component(pod)
    if engine == "spark":
        return f"raise spec.spark.{'executors' if component == names.EXECUTOR else 'driver'}.memory"
    if engine == "dask" and component != names.DRIVER:
        return "raise spec.dask.memory"
    return (
        f"raise it with resources of the container {names.CONTAINER} in spec.podTemplate, "
        "or read less with spec.source.filter"
    )


def _labels(pod: Raw) -> Raw:
    return pod["metadata"].get("labels") or {}


def _said(ended: Raw) -> str:
    message = str(ended.get("message") or "").strip()
    return f"ended with exit code {ended.get('exitCode')}" + (f": {message}" if message else "")


def read_report(message: object) -> Report | None:
    """The report of a termination message; None for what is none."""
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        report = tolerant(Report, json.loads(message))
    except (ValueError, RecursionError):
        return None
    if report is None or report.result is None:
        return report
    finite = {name: score for name, score in report.result.scores.items() if math.isfinite(score)}
    return report.model_copy(update={"result": report.result.model_copy(update={"scores": finite})})


_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "DeletionByPodGC": "NodeLost",
    "DeletionByTaintManager": "Evicted",
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
}


def _disruption(status: Raw) -> Trouble | None:
    """Why the cluster took the pod away, if it did."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason = word(status.get("reason"), _DISRUPTIONS.get(condition.get("reason"), "Disrupted"))
            return Trouble(reason, plain(status.get("message") or condition.get("message")))
    if status.get("reason") in ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"):
        return Trouble(status["reason"], plain(status.get("message")))
    return None


def _containers(pod: Raw) -> Iterator[Raw]:
    """The statuses of a pod's containers, in the order in which they start."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _main(pod: Raw) -> Raw:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((one for one in statuses if one.get("name") == names.CONTAINER), {})


def _state(status: Raw) -> Raw:
    return status.get("state") or {}


def _memory_limit(pod: Raw) -> str:
    for container in pod.get("spec", {}).get("containers") or ():
        limit = (container.get("resources") or {}).get("limits", {}).get("memory")
        if container.get("name") == names.CONTAINER and limit:
            return f" of {limit}"
    return ""
