"""`almanac run`: carry out a job in this process, show how far it is, and sum it up."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

import click
import yaml
from rich.console import Console

from almanac.api import Engine, ExtractJob, Job, JobError, Reason, Report
from almanac.cli import extracts, summary
from almanac.documents import load_documents

if TYPE_CHECKING:
    from almanac_jobs.choice import Choice
    from almanac_jobs.progress import Progress
    from almanac_jobs.task import Look

EPILOG = """\b
Examples:
  almanac run -f job.yaml                                     run it, watch it, read the summary
  almanac run -f job.yaml --sample                            train one entity, write nothing
  almanac run -f job.yaml --dry-run                           check the job, its source and memory only
  almanac run -f job.yaml --set spec.horizon=14               with another horizon
  almanac run -f jobs.yaml --name journal-entries             one job of several in a file
  almanac run -f job.yaml --output json | jq .result.scores   for programs: the report on stdout
  kustomize build . | almanac run -f -                        a job from standard input
"""
RUN_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Value = TypeVar("Value")


@click.command(epilog=EPILOG)
@click.option("-f", "--filename", "path", required=True, metavar="FILE", help="File with the job, or - for stdin.")
@click.option("--name", metavar="NAME", help="The job to run, where the file holds several.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Set a field first: spec.horizon=14.")
@click.option(
    "--sample", is_flag=True, help="Try one entity, 10,000 rows of anomalies, 5 of an extract; write nothing."
)
@click.option("--dry-run", is_flag=True, help="Check the job, its source and memory only, and write nothing.")
@click.option(
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="A summary, or the report of the run, on stdout.",
)
@click.option(
    "--local-memory",
    metavar="AMOUNT",
    envvar="ALMANAC_LOCAL_MEMORY",
    help="Memory up to which engine auto is this process: 8Gi, or a share of what there is.  [default: 80%]",
)
@click.option("--run-id", metavar="ID", help="Name of the run's folder.  [default: from time and chance]")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--debug", is_flag=True, envvar="ALMANAC_DEBUG", help="Show the traceback of a failure.")
def run(
    path: str,
    name: str | None,
    overrides: tuple[str, ...],
    sample: bool,
    dry_run: bool,
    output: str,
    local_memory: str | None,
    run_id: str | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Run a job on this machine, as a cluster would.

    Results go to a folder of their own, {output.uri}/runs/{run id}, and {output.uri}/latest.json points to them once
    they are complete. A run that fails, or is stopped with Ctrl-C, changes nothing that was there before.
    """
    if sample and dry_run:
        raise click.UsageError("--sample and --dry-run exclude each other")
    if (sample or dry_run) and output != "text":
        raise click.UsageError(f"--output {output} is the report of a whole run: leave out --sample and --dry-run")
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise click.BadParameter("lower-case letters, digits and - only, at most 63", param_hint="--run-id")
    now = datetime.now(UTC)
    environment = os.environ | ({"ALMANAC_LOCAL_MEMORY": local_memory} if local_memory else {})
    shell = Shell(run_id or new_run_id(now, secrets.token_hex(3)), now, output, quiet, debug, environment)
    try:
        found = load(path, overrides, name)
        check_installed()
        job = with_extract(found, path)
    except JobError as error:
        shell.fail(error)
        sys.exit(error.exit_code)
    if sample:
        shell.sample(job)
    elif dry_run:
        shell.look(job)
    else:
        shell.run(job)


def new_run_id(now: datetime, token: str) -> str:
    """The id of a run that begins `now`: `20261121-021500-3f9a2c`, UTC, so that ids sort as runs began."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{token}"


def load(path: str, overrides: tuple[str, ...] = (), name: str | None = None) -> Job:
    """The one job of a file, with `overrides` applied: that of a name, or the one that reads what the others extract.

    Raises:
        JobError: with every problem of the job, or if there is none, or more than one.
    """
    there = [document for document in load_documents([path]) if not document.foreign]
    jobs = [document for document in there if document.name == name] if name else extracts.consumers(there)
    if len(jobs) != 1:
        lines = ", ".join(f"{document.name or '?'} (line {document.line})" for document in there)
        found = (
            f"{len(there)} jobs, and a run is of one: {lines}: choose with --name" if there else "no job of Almanac's"
        )
        raise JobError(Reason.INVALID_SPEC, f"{path}: holds {found}")
    return jobs[0].override(overrides).parse()


def with_extract(job: Job, path: str) -> Job:
    """A job that reads an ExtractJob's data set, with the newest complete run of it; any other job as it is.

    Raises:
        JobError: if there is no manifest of the ExtractJob beside that of the job, or no complete run.
    """
    extract = job.spec.extract
    if extract is None or extract.uri is not None:
        return job
    from almanac_jobs.extracted import newest

    return job.reading(newest(extracts.find(extract.name, job.metadata.namespace, path)))


def check_installed() -> None:
    """Refuse to run where what a run needs is not there: a library, or the compiled kernel."""
    try:
        import almanac_jobs.run  # noqa: F401
        from almanac_jobs.kernel import library

        library()
        if find_spec("matplotlib") is None:  # which is imported last, once all the work is done
            raise ModuleNotFoundError(name="matplotlib")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("almanac"):
            raise
        missing = f"almanac run needs {error.name}, which is not installed: pip install 'almanac[local]'"
        raise JobError(Reason.NOT_INSTALLED, missing) from error
    except ImportError as error:
        raise JobError(Reason.NOT_INSTALLED, str(error)) from error


@dataclass(frozen=True, slots=True)
class Shell:
    """How a run meets its caller: the result goes to stdout in the form of `output`, everything else to stderr."""

    run_id: str
    started: datetime
    output: str
    quiet: bool
    debug: bool
    environment: Mapping[str, str]

    def run(self, job: Job) -> None:
        from almanac_jobs import choice, run

        if isinstance(job, ExtractJob) and self._was_complete(job):
            return
        manifest = yaml.safe_dump(job.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
        outcome = self._launch(
            lambda progress: run.run(
                job,
                engine=choice.named(job.spec.engine, self.environment),
                run_id=self.run_id,
                clock=lambda: datetime.now(UTC),
                progress=progress,
                manifest=manifest,
                environment=self.environment,
            ),
            job.spec.engine,
            resumable=isinstance(job, ExtractJob),
        )
        if outcome.report.message:
            self._warn(outcome.report.message)
        if self.output == "text":
            summary.show_outcome(job, outcome, Console(highlight=False))
        else:
            self._tell(outcome.report)

    def _was_complete(self, job: ExtractJob) -> bool:
        """Whether the run is complete already: it was stopped once it was, perhaps before it could say so."""
        from almanac_jobs import run

        now = datetime.now(UTC)
        done = self._launch(lambda progress: run.resume(job, run_id=self.run_id, now=now, progress=progress))
        if done is None:
            return False
        if self.output == "text":
            click.echo(f"run {self.run_id} is complete already: {done.result.uri if done.result else ''}")
        else:
            self._tell(done)
        return True

    def sample(self, job: Job) -> None:
        from almanac_jobs import run

        summary.show_sample(self._launch(lambda progress: run.sample(job, progress)), Console(highlight=False))

    def look(self, job: Job) -> None:
        from almanac_jobs import choice, run
        from almanac_jobs.resources import memory_limit

        def seen(progress: Progress) -> tuple[Look, Choice]:
            asked = choice.named(job.spec.engine, self.environment)
            here = choice.machine(memory_limit(), self.environment, hand_over=False)
            found = run.look(job)
            return found, choice.decide(asked, found.footprint, found.clusters, here)

        found, chosen = self._launch(seen)
        if chosen.warning:
            self._warn(chosen.warning)
        summary.show_look(job, found, chosen, Console(highlight=False))

    def fail(self, error: JobError, engine: Engine = Engine.LOCAL) -> None:
        """Say what is wrong."""
        for message in error.message.splitlines():
            click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
        report = Report.failure(self.run_id, engine, error)
        self._tell(report.model_copy(update={"start_time": self.started, "end_time": datetime.now(UTC)}))

    def _launch(
        self, work: Callable[[Progress], Value], asked: Engine = Engine.LOCAL, *, resumable: bool = False
    ) -> Value:
        """The value of work that may fail or be stopped by a signal, which ends the process."""
        from almanac_jobs.launch import Done, launch
        from almanac_jobs.progress import Progress
        from almanac_jobs.resources import memory_guard, memory_limit

        progress = Progress(guard=memory_guard(memory_limit()))
        with self._display(progress):
            ended = launch(lambda: work(progress), progress, sys.stderr, debug=self.debug)
        if isinstance(ended, Done):
            return ended.value
        if progress.choice and progress.choice.warning:
            self._warn(progress.choice.warning)
        self.fail(ended.error, progress.engine(asked))
        if resumable and ended.error.exit_code.worth_a_retry:
            click.echo(
                f"What is read is kept: the same command with --run-id {self.run_id} goes on from there.", err=True
            )
        if ended.stuck:
            sys.stdout.flush()
            os._exit(ended.exit_code)
        sys.exit(ended.exit_code)

    def _warn(self, message: str) -> None:
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {message}", err=True)

    def _display(self, progress: Progress) -> AbstractContextManager[None]:
        from almanac_jobs.progress import bar, lines

        console = Console(stderr=True)
        if self.quiet:
            return nullcontext()
        if console.is_terminal and not console.is_dumb_terminal:
            return bar(progress, console)
        return lines(progress, sys.stderr)

    def _tell(self, report: Report) -> None:
        """The report, for programs."""
        if self.output == "json":
            click.echo(report.to_json())
        elif self.output == "yaml":
            click.echo(yaml.safe_dump(json.loads(report.to_json()), sort_keys=False, allow_unicode=True), nl=False)
