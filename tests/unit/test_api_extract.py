"""What an ExtractJob can say, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from almanac.api import ExtractJob, ForecastJob, problems
from extracts import REFUSED, TAKEN, extract
from manifests import document


def said(**fields: Any) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        ExtractJob.parse(extract(**fields))
    return [str(one) for one in problems(refused.value)]


@pytest.mark.parametrize("fields", REFUSED, ids=str)
def test_one_problem_is_one_message(fields: dict[str, Any]) -> None:
    (message,) = said(**fields)
    assert message.startswith("spec.")
    assert "hunter2" not in message, "a password is shown"


@pytest.mark.parametrize("fields", TAKEN, ids=str)
def test_taken(fields: dict[str, Any]) -> None:
    ExtractJob.parse(extract(**fields))


def test_a_job_needs_nothing_but_a_database() -> None:
    spec = ExtractJob.parse({"metadata": {"name": "x"}, "spec": {}}).spec
    assert spec.source.relation == "journal_entries"
    assert spec.output.uri == "data/raw/journal_entries"


def test_a_password_is_told_where_it_belongs() -> None:
    (message,) = said(source__connection={"password": "hunter2"})
    assert "put it into a Secret as PGPASSWORD" in message


def test_secrets_of_storage_and_database() -> None:
    fields = {"storage": {"secretName": "s3"}, "source__connection__secretName": "db"}
    assert ExtractJob.parse(extract(**fields)).spec.secrets == ("s3", "db")
    assert ExtractJob.parse(extract()).spec.secrets == ()


def test_where_it_reads_from_changes_no_run_of_others() -> None:
    """A job that reads an extract is the same job, whichever run of it is read."""
    source = {"extract": {"name": "entries"}, "columns": {"entity": "a", "time": "t", "value": "v"}}
    job = ForecastJob.parse(document(source=source))
    pinned = job.reading("s3://ledger/raw/runs/r1")
    assert pinned.spec.source.place == "s3://ledger/raw/runs/r1"
    assert job.spec.source.place == ""
    assert pinned.spec.extract is not None
    assert pinned.spec.extract.name == "entries"
    assert ForecastJob.parse(document()).spec.extract is None


def test_a_null_bound_is_none() -> None:
    job = ExtractJob.parse(extract(source__range={"column": "date", "start": None, "end": None}))
    assert job.spec.source.range is not None
    assert job.spec.source.range.start is None
