"""The commands that talk to a cluster: what they print, where, and how they end."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import scripted
from almanac.cli import COMMANDS, main, tables
from almanac.client import JobRecord
from manifests import document
from scripted import JOBS, PODS, Server, events, missing, refusal

LEDGER = f"{JOBS}/ledger"
RUN = "20261121-021500-3f9a2c"
URI = f"s3://ledger/models/runs/{RUN}"
RESULT = {"uri": URI, "entities": 5000, "failedEntities": 2, "rows": 600_000, "checksum": "sha256:0"} | {
    "scores": {"mase": 0.87, "seasonalnaive_mase": 1.0}
}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def api() -> Iterator[Server]:
    with scripted.serve() as server:
        yield server


@pytest.fixture
def almanac(api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command against the server, in a folder with job files."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(document(horizon=0), sort_keys=False))

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, arguments)
        return result.exit_code, result.stdout, result.stderr

    return run


def job(phase: str = "", reason: str = "", version: str = "1", status: Any = None, **fields: Any) -> dict[str, Any]:
    """A job as the API has it."""
    made = document(**fields)
    made["metadata"] |= {"namespace": "default", "uid": "u1", "generation": 1, "resourceVersion": version}
    made["metadata"] |= {"creationTimestamp": "2026-11-21T02:15:00Z", "managedFields": [{"manager": "kubectl"}]}
    if phase:
        ready = {"type": "Ready", "status": "False", "reason": reason, "message": "so it is"}
        run = {"id": RUN, "number": 4, "trigger": "Spec", "startTime": "2026-11-21T02:15:00Z"}
        told = {"observedGeneration": 1, "phase": phase, "conditions": [ready], "run": run, "engine": "local"}
        made["status"] = told | (status or {})
    return made


def test_submit(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, missing("ledger"), (200, job()))
    api.answer("PATCH", LEDGER, (200, job()))
    assert almanac("submit", "-f", "job.yaml")[:2] == (
        0,
        "forecastjob.almanac.dev/ledger created in namespace default\n",
    )
    code, out, _ = almanac(
        "submit", "-f", "job.yaml", "--dry-run=server", "--set", "spec.horizon=3", "--force-conflicts"
    )
    assert code == 0
    assert out == "forecastjob.almanac.dev/ledger unchanged in namespace default (dry run: nothing is kept)\n"
    sent = api.requests[-1]
    assert (sent.query["dryRun"], sent.query["force"], sent.body["spec"]["horizon"]) == ("All", "true", 3)


def test_submit_says_how_to_run_a_job_again(api: Server, almanac: Command) -> None:
    done = job("Succeeded", "Completed", restartNonce=2)
    api.answer("GET", LEDGER, (200, done))
    api.answer("PATCH", LEDGER, (200, done))
    assert almanac("submit", "-f", "job.yaml") == (
        0,
        "forecastjob.almanac.dev/ledger unchanged in namespace default\n",
        "ledger has run with this spec: with another spec.restartNonce than 2 in its file it runs again\n",
    )


def test_submit_checks_everything_first(api: Server, almanac: Command) -> None:
    code, out, err = almanac("submit", "-f", "job.yaml", "-f", "bad.yaml")
    assert (code, out) == (64, "")
    assert err == "bad.yaml:14: spec.horizon: must be at least 1 (got 0)\n✗ nothing was submitted\n"
    assert not api.requests


def test_submit_goes_on_after_a_job_that_is_refused(api: Server, almanac: Command, tmp_path: Path) -> None:
    other = document()
    other["metadata"]["name"] = "other"
    (tmp_path / "two.yaml").write_text(yaml.safe_dump_all([document(), other]))
    causes = [{"field": "spec.horizon", "message": "is not to the taste of this cluster"}]
    for path in (LEDGER, f"{JOBS}/other"):
        api.answer("GET", path, missing("x"))
    api.answer("PATCH", LEDGER, refusal(422, "Invalid", "is invalid", causes=causes))
    api.answer("PATCH", f"{JOBS}/other", (201, {**job(), "metadata": {**job()["metadata"], "name": "other"}}))
    code, out, err = almanac("submit", "-f", "two.yaml")
    assert (code, out) == (64, "forecastjob.almanac.dev/other created in namespace default\n")
    assert err == "error: two.yaml:1: spec.horizon: is not to the taste of this cluster\n"


def test_submit_waits(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, missing("ledger"), (200, job()))
    api.answer("PATCH", LEDGER, (201, job()))
    running = job("Running", "Running", "2", {"stage": "fit", "progress": "62%"})
    api.answer("WATCH", JOBS, events(("MODIFIED", running), ("MODIFIED", job("Failed", "DataError", "3"))))
    code, out, err = almanac("submit", "-f", "job.yaml", "--wait", "-o", "json")
    assert code == 65
    assert json.loads(out)["status"]["phase"] == "Failed"
    assert [line.split(" ", 1)[1] for line in err.splitlines()] == [
        "ledger waits for an operator of namespace default",
        "ledger Running fit 62% Running: so it is",
        "ledger Failed DataError: so it is",
    ]


def test_submit_says_that_a_job_is_held(api: Server, almanac: Command) -> None:
    held = job("Suspended", "Suspended", suspend=True)
    api.answer("GET", LEDGER, (200, held))
    api.answer("PATCH", LEDGER, (200, held))
    code, _, err = almanac("submit", "-f", "job.yaml", "--wait")
    assert code == 75
    assert err.startswith("ledger is suspended: `almanac cancel --undo ledger` lets it go on\n")


def test_status(api: Server, almanac: Command) -> None:
    past = {"id": RUN, "phase": "Succeeded", "reason": "Completed", "uri": URI}
    done = job("Succeeded", "Completed", status={"result": RESULT, "history": [past], "progress": "100%"})
    api.answer("GET", LEDGER, (200, done))
    code, out, _ = almanac("status", "ledger")
    assert code == 0
    for told in (
        "Phase   Succeeded",
        "Completed: so it is",
        f"Result  {URI}",
        "5,000 entities, 2 of them failed",
        "number 4",
    ):
        assert told in out
    assert "CONDITION" not in out
    wide = almanac("status", "ledger", "-o", "wide")[1]
    assert f"{RUN}  Succeeded  Completed" in wide
    told = json.loads(almanac("status", "ledger", "-o", "json")[1])
    assert told["status"] == done["status"]
    assert "managedFields" not in told["metadata"]
    assert yaml.safe_load(almanac("status", "ledger", "-o", "yaml")[1])["kind"] == "ForecastJob"


def test_status_of_what_nobody_looked_at(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job()))
    assert "none: no operator has looked at it yet" in almanac("status", "ledger")[1]


def test_status_watches(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job("Running", "Running")))
    api.answer("WATCH", JOBS, events(("MODIFIED", job("Succeeded", "Completed", "2"))))
    code, out, _ = almanac("status", "ledger", "--watch")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()] == ["Running", "Succeeded"]
    assert almanac("status", "ledger", "other", "--watch")[0] == 2


@pytest.mark.parametrize("style", ["yaml", "json"])
def test_status_watches_for_programs(api: Server, almanac: Command, style: str) -> None:
    api.answer("GET", LEDGER, (200, job("Running", "Running")))
    api.answer("WATCH", JOBS, events(("MODIFIED", job("Succeeded", "Completed", "2"))))
    out = almanac("status", "ledger", "--watch", "-o", style)[1]
    told = list(yaml.safe_load_all(out)) if style == "yaml" else _documents(out)
    assert [one["status"]["phase"] for one in told if one] == ["Running", "Succeeded"]


def _documents(text: str) -> list[Any]:
    decoder, told = json.JSONDecoder(), []
    while text.strip():
        value, end = decoder.raw_decode(text.lstrip())
        told.append(value)
        text = text.lstrip()[end:]
    return told


def test_results(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job("Succeeded", "Completed", status={"result": RESULT})))
    assert almanac("results", "ledger", "-o", "uri") == (0, f"{URI}\n", "")
    assert json.loads(almanac("results", "ledger", "-o", "json")[1]) == RESULT
    assert yaml.safe_load(almanac("results", "ledger", "-o", "yaml")[1]) == RESULT
    assert "MASE 0.870 (seasonal naive 1)" in almanac("results", "ledger")[1]
    assert "seasonalnaive_mase  1.0000" in almanac("results", "ledger", "-o", "wide")[1]


def test_results_of_an_earlier_run(api: Server, almanac: Command) -> None:
    status = {"result": RESULT, "run": {"id": "20261122-021500-aaaaaa", "driver": "ledger-aaaaaa"}}
    api.answer("GET", LEDGER, (200, job("Failed", "DataError", status=status)))
    said = "of an earlier run: 20261122-021500-aaaaaa has failed (DataError)"
    assert almanac("results", "ledger")[2] == f"These are results {said}\n"
    assert said in almanac("status", "ledger")[1]
    assert almanac("results", "ledger", "-o", "uri") == (0, f"{URI}\n", "")


def test_a_schedule_that_is_suspended_has_no_next_run(api: Server, almanac: Command) -> None:
    status = {"nextScheduleTime": "2026-11-22T02:15:00Z"}
    api.answer("GET", LEDGER, (200, job("Suspended", "Suspended", status=status, suspend=True, schedule="15 2 * * *")))
    assert almanac("status", "ledger")[1].splitlines()[-1] == (
        "Next run  none: spec.suspend is true (`almanac cancel --undo ledger`)"
    )


def test_no_operator_looks_at_a_job(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job()))
    told = "none: no operator has looked at it yet. Is one there that watches namespace default?"
    assert told in almanac("status", "ledger")[1]


def test_no_results(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job("Failed", "DataError")))
    code, _, err = almanac("results", "ledger")
    assert (code, err) == (
        66,
        "error: forecastjob.almanac.dev/ledger has no results yet, its phase is Failed: DataError: so it is\n",
    )


def test_cancel(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job("Running", "Running")))
    api.answer("PATCH", LEDGER, (200, job("Running", "Running", suspend=True)))
    api.answer("DELETE", LEDGER, (200, {}))
    assert almanac("cancel", "ledger")[1] == "forecastjob.almanac.dev/ledger suspended\n"
    assert almanac("cancel", "ledger", "--undo")[1] == "forecastjob.almanac.dev/ledger goes on\n"
    assert almanac("cancel", "ledger", "--delete")[1] == "forecastjob.almanac.dev/ledger deleted\n"
    assert almanac("cancel", "ledger", "--delete", "--undo")[0] == 2


def test_cancel_of_what_is_over(api: Server, almanac: Command) -> None:
    api.answer("GET", LEDGER, (200, job("Succeeded", "Completed")))
    assert "left as it is: its run is over (Succeeded)" in almanac("cancel", "ledger")[1]


def test_list(api: Server, almanac: Command) -> None:
    other = job("Running", "Running", status={"progress": "62%"})
    other["metadata"]["name"] = "another-job"
    items = [job("Succeeded", "Completed", status={"result": RESULT}), other]
    api.answer("GET", JOBS, (200, {"items": items}))
    head, first, second = almanac("list")[1].splitlines()
    assert head.split() == ["NAME", "PHASE", "REASON", "ENGINE", "PROGRESS", "ENTITIES", "MASE", "AGE"]
    assert first.split()[:5] == ["another-job", "Running", "Running", "local", "62%"]
    assert second.split()[:6] == ["ledger", "Succeeded", "Completed", "local", "5,000", "0.870"]
    assert first.index("Running") == second.index("Succeeded") == head.index("PHASE")
    listed = json.loads(almanac("list", "-o", "json")[1])
    assert [one["kind"] for one in listed["items"]] == ["ForecastJob", "ForecastJob"]
    assert yaml.safe_load(almanac("list", "-o", "yaml")[1])["kind"] == "List"


def test_list_of_both_kinds(api: Server, almanac: Command) -> None:
    odd = job("Succeeded", "Completed", status={"result": RESULT | {"scores": {"flagged": 1234.0}}})
    odd["metadata"]["name"] = "entries"
    api.answer("GET", JOBS, (200, {"items": [job("Succeeded", "Completed", status={"result": RESULT})]}))
    api.answer("GET", JOBS.replace("forecastjobs", "anomalyjobs"), (200, {"items": [odd]}))
    head, first, second = almanac("list")[1].splitlines()
    assert head.split()[6:8] == ["FLAGGED", "MASE"]
    assert first.split()[0] == "entries"
    assert "1,234" in first
    assert "1,234.000" not in first
    assert "0.870" in second


def test_list_of_all_namespaces(api: Server, almanac: Command) -> None:
    api.answer("GET", "/apis/almanac.dev/v1alpha1/forecastjobs", (200, {"items": [job("Pending", "Unschedulable")]}))
    head, row = almanac("list", "-A", "-o", "wide")[1].splitlines()
    assert head.split()[0] == "NAMESPACE"
    assert row.split()[:3] == ["default", "ledger", "Pending"]
    assert "Unschedulable" in row


def test_empty_lists(api: Server, almanac: Command) -> None:
    api.answer("GET", JOBS, (200, {"items": []}))
    assert almanac("list") == (0, "", "There are no jobs in namespace default.\n")
    assert almanac("list", "-l", "a=b")[2] == "There are no jobs with these labels in namespace default.\n"
    assert json.loads(almanac("list", "-o", "json")[1])["items"] == []
    assert yaml.safe_load(almanac("list", "-o", "yaml")[1])["items"] == []


def test_logs(api: Server, almanac: Command) -> None:
    states = [{"name": "almanac", "state": {"terminated": {}}}]
    pod = {"metadata": {"name": "p", "uid": "p"}, "status": {"containerStatuses": states}}
    api.answer("GET", LEDGER, (200, job("Succeeded", "Completed")))
    api.answer("GET", PODS, (200, {"items": [pod]}))
    api.answer("GET", f"{PODS}/p/log", (200, b"one\ntwo\n"))
    assert almanac("logs", "ledger", "--follow")[:2] == (0, "one\ntwo\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("list",), 66, "this cluster does not know Almanac's kinds"),
        (("status", "pod/x"), 64, "there is no kind pod: write fj/x"),
        (("list", "--context", "prod"), 64, "prod"),
        (("list", "--kubeconfig", "none"), 64, "none"),
    ],
)
def test_errors(almanac: Command, arguments: tuple[str, ...], code: int, told: str) -> None:
    ended, out, err = almanac(*arguments)
    assert (ended, out) == (code, "")
    assert err.startswith("error: ")
    assert told in err


def test_without_what_talks_to_clusters(almanac: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("almanac.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    code, _, err = almanac("list")
    assert code == 64
    assert "aiohttp is not installed: pip install 'almanac[client]'" in err


@pytest.mark.parametrize("command", ["submit", "status", "results", "cancel", "list", "logs", "render"])
def test_help_has_examples(command: str) -> None:
    told = CliRunner().invoke(main, [command, "--help"]).output
    assert f"Examples:\n    almanac {command} " in told
    assert command in COMMANDS


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")],
)
def test_age(seconds: int, told: str) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert tables.age(now - timedelta(seconds=seconds), now) == told


def test_colours_keep_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may be called like a phase."""
    named = job("Running", "Running")
    named["metadata"]["name"] = "Running"
    record = JobRecord.read(named, "ForecastJob")
    row = tables.rows([record], datetime(2026, 11, 21, 3, tzinfo=UTC)).splitlines()[1]
    assert row.startswith("Running   \x1b[36mRunning\x1b[0m   Running   local")


def test_without_what_the_operator_needs(almanac: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "almanac.process", raising=False)
    monkeypatch.delattr("almanac.process", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    code, _, err = almanac("operator")
    assert code == 64
    assert "aiohttp is not installed: pip install 'almanac[operator]'" in err
