"""The command line: what it says, where it says it, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from almanac.api import JobError, Reason
from almanac.cli import COMMANDS, main
from manifests import document

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(document(horizon=0, suspend="x"), sort_keys=False))
    (tmp_path / "other.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
    return tmp_path


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_valid(folder: Path) -> None:
    code, out, err = run("validate", "-f", "good.yaml", "-f", "other.yaml")
    assert (code, out) == (0, "")
    assert err == "other.yaml:1: ignored: ConfigMap is no kind of Almanac's\n✓ 1 job valid\n"


def test_problems_go_to_stdout(folder: Path) -> None:
    code, out, err = run("validate", "-f", ".", "-f", "good.yaml")
    assert code == 64
    assert out.splitlines() == [
        "bad.yaml:14: spec.horizon: must be at least 1 (got 0)",
        'bad.yaml:15: spec.suspend: must be true or false (got "x")',
    ]
    assert err.endswith("✗ 2 problems, 3 jobs looked at\n")


def test_a_template_that_the_operator_would_refuse_is_a_problem(folder: Path) -> None:
    container = {"name": "driver", "resources": {"limits": {"memory": "2Gi"}}}
    job = document(podTemplate={"spec": {"containers": [container]}})
    code, out, _ = run("validate", "-f", "-", stdin=yaml.safe_dump(job, sort_keys=False))
    assert code == 64
    assert out.partition(": ")[2] == (
        "spec.podTemplate.spec.containers[0]: needs an image; the run's own container is named almanac "
        '(got "driver")\n'
    )


def test_stdin_and_overrides(folder: Path) -> None:
    text = (folder / "good.yaml").read_text()
    assert run("validate", "-f", "-", "--set", "spec.horizon=7", stdin=text)[0] == 0
    code, out, _ = run("validate", "-f", "-", "--set", "spec.horizon=0", stdin=text)
    assert (code, out) == (64, "--set spec.horizon=0: spec.horizon: must be at least 1 (got 0)\n")
    code, _, err = run("validate", "-f", "-", "--set", "horizon=0", stdin=text)
    assert (code, err) == (64, "error: --set horizon=0: there is no field horizon, did you mean spec.horizon?\n")


def test_a_missing_file_does_not_hide_problems(folder: Path) -> None:
    code, out, err = run("validate", "-f", "nothing.yaml", "-f", "bad.yaml")
    assert code == 66
    assert len(out.splitlines()) == 2
    assert "nothing.yaml: there is no such file" in err


def test_json(folder: Path) -> None:
    code, out, _ = run("validate", "-f", "bad.yaml", "-f", "other.yaml", "-f", "none.yaml", "--output", "json")
    assert code == 66
    assert json.loads(out) == {
        "valid": False,
        "jobs": [{"file": "bad.yaml", "line": 1, "kind": "ForecastJob", "name": "ledger"}],
        "problems": [
            {"file": "bad.yaml", "line": 14, "path": "spec.horizon", "message": "must be at least 1", "got": 0},
            {"file": "bad.yaml", "line": 15, "path": "spec.suspend", "message": "must be true or false", "got": "x"},
        ],
        "ignored": [{"file": "other.yaml", "line": 1, "why": "ConfigMap is no kind of Almanac's"}],
        "errors": ["none.yaml: there is no such file"],
    }
    assert json.loads(run("validate", "-f", "good.yaml", "--output", "json")[1])["valid"] is True


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from almanac.cli import main; main(['--help'], standalone_mode=False);"
        "assert not [name for name in sys.modules if name.startswith(('almanac.cli.', 'almanac_jobs', 'numpy'))]"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for command, summary in COMMANDS.items():
        assert f"  {command} " in told
        assert " ".join(summary.split()[:4]) in told
    assert "Exit codes:" in told


def test_version() -> None:
    assert run("--version")[1].startswith("almanac ")


def test_unknown_command() -> None:
    code, _, err = run("forecast")
    assert code == 2
    assert "No such command 'forecast'" in err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (JobError(Reason.ACCESS_DENIED, "s3://b: no"), 77, "error: s3://b: no\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, told: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(type(main), "get_command", lambda *_: click.Command("fails", callback=fail))
    assert run("fails") == (code, "", told)
