"""Names of children and labels: always valid, never those of another run, the same every time."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac import names

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
UID = "7d5e2c3a-0b1f-4e8a-9c6d-1a2b3c4d5e6f"

part = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?", fullmatch=True)
job_names = st.lists(part, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name) <= 253)
numbers = st.integers(1, 10**9)


@given(job_names, st.uuids().map(str), numbers, st.sampled_from(["", "spark", "dask"]))
def test_children_are_dns_labels_that_leave_room_for_pods(job: str, uid: str, number: int, suffix: str) -> None:
    name = names.child_name(job, uid, number, suffix)
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= names.CHILD_LENGTH <= 63 - len("-abcde")


@given(job_names)
def test_labels_are_valid(job: str) -> None:
    label = names.label(job)
    assert LABEL.fullmatch(label)
    assert len(label) <= names.LABEL_LENGTH
    assert label == job or len(job) > names.LABEL_LENGTH


def test_labels_of_long_names_differ() -> None:
    assert names.label("x" * 80) != names.label("x" * 81)


def test_a_runs_names_carry_the_same_digits() -> None:
    run = names.run_id(datetime(2026, 11, 21, 2, 15, tzinfo=UTC), UID, 4)
    token = names.token(UID, 4)
    assert run == f"20261121-021500-{token}"
    assert names.child_name("ledger", UID, 4) == f"ledger-{token}"
    assert names.child_name("ledger", UID, 4, "spark") == f"ledger-{token}-spark"


def test_names_do_not_change_between_versions() -> None:
    """An operator of another version finds the children of this one."""
    assert names.child_name("ledger", UID, 1) == "ledger-a2447b"


def test_runs_differ_by_number_and_by_job() -> None:
    tokens = {names.token(uid, number) for uid in ("a", "b") for number in range(1, 50)}
    assert len(tokens) == 98


def test_ids_are_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert names.run_id(datetime(2026, 1, 1, 0, 30, tzinfo=berlin), UID, 1).startswith("20251231-233000-")


def test_an_id_tells_when_its_run_began() -> None:
    start = datetime(2026, 11, 21, 2, 15, tzinfo=UTC)
    assert names.run_start(names.run_id(start, UID, 4)) == start


@pytest.mark.parametrize("text", ["", "20261121-021500", "20269921-021500-3f9a2c", "20261121-021500-3f9a2c-x"])
def test_what_is_no_id_tells_nothing(text: str) -> None:
    assert names.run_start(text) is None


def test_selectors() -> None:
    assert names.job_selector(UID) == (
        "app.kubernetes.io/managed-by=almanac,app.kubernetes.io/component=driver,almanac.dev/job-uid=" + UID
    )
