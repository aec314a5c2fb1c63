"""The driver of a run in a cluster: `python -m almanac_jobs job.json --run-id ID`.

Reads the job as JSON, carries it out, writes the Report to the container's termination message, on success and on
failure, and ends with the exit code that the Report names. Progress and errors are lines on stderr; progress and
metrics are served over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from almanac.api import KINDS, Engine, ExitCode, Job, JobError, Reason, Report, invalid_spec, problems
from almanac.api.errors import shorten
from almanac_jobs import choice, endpoint, run
from almanac_jobs.launch import DEBUG, Done, Failed, launch
from almanac_jobs.progress import Progress, lines
from almanac_jobs.resources import memory_guard, memory_limit

TERMINATION_LOG = "/dev/termination-log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a job; gives the exit code."""
    options = _options(arguments)
    started = datetime.now(UTC)
    progress = Progress(guard=memory_guard(memory_limit()))

    asked = Engine.AUTO

    def work() -> Report:
        nonlocal asked
        job = load(options.job)
        asked = choice.named(job.spec.engine, os.environ)
        done = run.resume(job, run_id=options.run_id, now=datetime.now(UTC), progress=progress)
        if done is not None:
            return done
        return run.run(
            job,
            engine=asked,
            run_id=options.run_id,
            clock=lambda: datetime.now(UTC),
            progress=progress,
            manifest=json.dumps(job.model_dump(mode="json", exclude_unset=True), indent=2, ensure_ascii=False),
            environment=os.environ,
            hand_over=True,
        ).report

    with lines(progress, sys.stderr), _endpoint(progress, options.port):
        ended = launch(work, progress, sys.stderr, debug=bool(os.environ.get(DEBUG)))
    engine = progress.engine(asked)
    report = ended.value if isinstance(ended, Done) else _failure(options.run_id, engine, started, ended)
    _tell(report, options.termination_log)
    if isinstance(ended, Failed) and ended.stuck:
        os._exit(ended.exit_code)
    return ended.exit_code if isinstance(ended, Failed) else 0


def load(file: Path) -> Job:
    """The job in a JSON file.

    Raises:
        JobError: InvalidSpec, with every problem of the job, SourceNotFound if there is no such file.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{file}: there is no such file") from None
    except ValueError as error:
        raise JobError(Reason.INVALID_SPEC, f"{file}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise JobError(Reason.INVALID_SPEC, f"{file}: is no job: a job is an object with apiVersion, kind and spec")
    named = document.get("kind")
    kind = KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise JobError(Reason.INVALID_SPEC, f"{file}: kind: must be {' or '.join(KINDS)} (got {shorten(named)})")
    try:
        return kind.parse(document)
    except ValidationError as error:
        raise invalid_spec(problems(error)) from error


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m almanac_jobs", description="Carry out a job, as its driver.")
    parser.add_argument("job", type=Path, help="the job, as JSON")
    parser.add_argument("--run-id", required=True, help="id of the run")
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=os.environ.get("ALMANAC_TERMINATION_LOG", TERMINATION_LOG),
        help="where the report goes (default: $ALMANAC_TERMINATION_LOG, or %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=endpoint.PORT, help="where progress and metrics are served (default: %(default)s)"
    )
    return parser.parse_args(arguments)


@contextmanager
def _endpoint(progress: Progress, port: int) -> Iterator[None]:
    """Serve progress, or do without: a run is not to fail for want of a port."""
    with ExitStack() as stack:
        try:
            stack.enter_context(endpoint.serve(progress, port))
        except OSError as error:
            sys.stderr.write(f"progress is not served on port {port}: {error.strerror}\n")
        yield


def _failure(run_id: str, engine: Engine, started: datetime, failed: Failed) -> Report:
    report = Report.failure(run_id, engine, failed.error)
    code = ExitCode(failed.exit_code)
    return report.model_copy(update={"exit_code": code, "start_time": started, "end_time": datetime.now(UTC)})


def _tell(report: Report, termination_log: Path) -> None:
    """Write the report where the container's end is read from; a person finds its message in the log."""
    outcome = f"run {report.run} ended: {report.reason}"
    sys.stderr.write(f"{outcome}: {report.message}\n" if report.message else f"{outcome}\n")
    try:
        termination_log.write_text(report.to_json(), encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"the report could not be written to {termination_log}: {error.strerror}\n")


if __name__ == "__main__":
    sys.exit(main())
