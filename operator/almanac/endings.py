"""How a driver ended, in the words of whoever knows best: its own report, its pod, or the Job controller. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from almanac.api import ExitCode, Job, Reason, Report
from almanac.observed import Driver, Outcome, Pod


@dataclass(frozen=True, slots=True)
class Ending:
    """How a driver ended."""

    succeeded: bool
    reason: str
    message: str
    code: int | None = None
    report: Report | None = None

    @property
    def too_big(self) -> bool:
        """The data do not fit into one process."""
        return not self.succeeded and self.code == ExitCode.TOO_BIG_FOR_LOCAL


def ending(job: Job, driver: Driver, pods: tuple[Pod, ...], *, certain: bool) -> Ending | None:
    """How a driver that has an outcome ended; None where its pods should tell more, and are not there (yet).

    `certain` says that no more can be learnt about its pods.
    """
    outcome = driver.outcome
    if outcome is None:
        return None
    if outcome.succeeded:
        return _success(pods, certain=certain)
    if outcome.reason == "DeadlineExceeded":
        return Ending(False, outcome.reason, f"not done within {job.spec.active_deadline_seconds} s: {_LONGER}")
    return _failure(outcome, pods, certain=certain)


_LONGER = "raise spec.activeDeadlineSeconds, or give the run more CPU in spec.podTemplate"


def _success(pods: tuple[Pod, ...], *, certain: bool) -> Ending | None:
    done = [pod.exit for pod in pods if pod.exit is not None and pod.exit.code == ExitCode.DONE]
    report = done[-1].report if done else None
    if report is None and not certain:
        return None
    message = _written(report) if report else "done; what the driver reported is lost with its pod"
    return Ending(True, Reason.COMPLETED, message, ExitCode.DONE, report)


def _written(report: Report) -> str:
    """What a complete run has done, in a sentence, and what the driver has to say besides."""
    result = report.result
    if result is None:
        return report.message
    failed = f", {result.failed_entities:,} of them without a forecast" if result.failed_entities else ""
    said = f"; {report.message}" if report.message else ""
    counted = f"{result.rows:,} rows" if result.entities is None else f"{result.entities:,} entities"
    return f"{counted}{failed}, written to {result.uri}{said}"


def _failure(outcome: Outcome, pods: tuple[Pod, ...], *, certain: bool) -> Ending | None:
    ended = [pod.exit for pod in pods if pod.exit is not None and pod.exit.code != ExitCode.DONE]
    if not ended and not certain:
        return None
    if not ended:
        return Ending(False, outcome.reason, f"{outcome.message}; its pods are gone, and what they have said with them")
    last = ended[-1]
    tries = f" (attempt {len(ended)}, the last)" if len(ended) > 1 else ""
    reason = Reason.TOO_BIG_FOR_LOCAL if last.code == ExitCode.TOO_BIG_FOR_LOCAL else last.reason
    return Ending(False, reason, f"{last.message}{tries}", last.code, last.report)
