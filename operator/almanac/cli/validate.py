"""`almanac validate`: check job files and report every problem at once."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import click

from almanac.api.errors import ExitCode, JobError
from almanac.documents import Document, Finding, load_documents


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found in all documents: jobs, problems of them, documents left alone, paths that could not be read."""

    jobs: tuple[Document, ...]
    findings: tuple[Finding, ...]
    ignored: tuple[Document, ...]
    unreadable: tuple[JobError, ...]

    @property
    def exit_code(self) -> ExitCode:
        if self.unreadable:
            return self.unreadable[0].exit_code
        return ExitCode.INVALID_JOB if self.findings else ExitCode.DONE


def check(paths: tuple[str, ...], overrides: tuple[str, ...] = ()) -> Outcome:
    """Look at every document of `paths`, with `overrides` applied to the jobs."""
    documents: list[Document] = []
    unreadable: list[JobError] = []
    for path in paths:
        try:
            documents += load_documents([path])
        except JobError as error:
            unreadable.append(error)
    ours = [document.override(overrides) for document in documents if not document.foreign]
    return Outcome(
        jobs=tuple(document for document in ours if document.is_job),
        findings=tuple(finding for document in ours for finding in document.findings()),
        ignored=tuple(document for document in documents if document.foreign),
        unreadable=tuple(unreadable),
    )


@click.command(epilog="\b\nExamples:\n  almanac validate -f job.yaml\n  kustomize build . | almanac validate -f -")
@click.option("-f", "--filename", "paths", multiple=True, required=True, help="File, folder, or - (repeatable).")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Set a field first: spec.horizon=14.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to report.  [default: text]")
def validate(paths: tuple[str, ...], overrides: tuple[str, ...], output: str) -> None:
    """Check job files and report every problem at once.

    Files may hold several documents; folders are searched for *.yaml, *.yml and *.json at any depth. Kinds that are not
    Almanac's are left alone. Ends with 0 if all is well, with 64 if a job is invalid, with 66 if there is no such file.
    """
    outcome = check(paths, overrides)
    if output == "json":
        click.echo(json.dumps(as_json(outcome), indent=2, ensure_ascii=False))
    else:
        _tell(outcome)
    sys.exit(outcome.exit_code)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome for programs."""
    return {
        "valid": outcome.exit_code is ExitCode.DONE,
        "jobs": [{"file": job.file, "line": job.line, "kind": job.kind, "name": job.name} for job in outcome.jobs],
        "problems": [
            {
                "file": finding.source,
                "line": finding.line,
                "path": finding.problem.path,
                "message": finding.problem.message,
                "got": finding.problem.got,
            }
            for finding in outcome.findings
        ],
        "ignored": [{"file": one.file, "line": one.line, "why": one.foreign} for one in outcome.ignored],
        "errors": [error.message for error in outcome.unreadable],
    }


def _tell(outcome: Outcome) -> None:
    for document in outcome.ignored:
        click.secho(f"{document.file}:{document.line}: ignored: {document.foreign}", dim=True, err=True)
    for finding in outcome.findings:
        place, _, problem = str(finding).partition(": ")
        click.echo(f"{click.style(place, bold=True)}: {problem}")
    for error in outcome.unreadable:
        click.secho(error.message, fg="red", err=True)
    jobs = _count(len(outcome.jobs), "job")
    if outcome.findings:
        click.secho(f"✗ {_count(len(outcome.findings), 'problem')}, {jobs} looked at", fg="red", err=True)
    elif not outcome.unreadable:
        click.secho(f"✓ {jobs} valid", fg="green", err=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
