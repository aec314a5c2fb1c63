"""Jobs and what the operator creates for them: tests/golden/README.md. `python tests/goldens.py` writes the outputs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from almanac.api import Engine, Job, Run, Trigger
from almanac.engines import build
from almanac.observed import Observed
from almanac.resource import read_job
from almanac.runs import claimed
from almanac.settings import Settings
from tools.chart import render

ROOT = Path(__file__).parent / "golden"
CHART = ROOT / "chart.yaml"
NAMES = sorted(path.stem for path in (ROOT / "input").glob("*.yaml"))

UID = "7d5e2c3a-0b1f-4e8a-9c6d-1a2b3c4d5e6f"
START = datetime(2026, 11, 21, 2, 15, tzinfo=UTC)
SETTINGS = Settings(
    image="registry.example/almanac:0.1.0",
    spark_image="registry.example/almanac-spark:0.1.0",
    dask_image="registry.example/almanac-dask:0.1.0",
)


def document(name: str) -> dict[str, Any]:
    """The input of this name, as the API would have it: with an identity."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "input" / f"{name}.yaml").read_text(encoding="utf-8"))
    made["metadata"] |= {"uid": UID, "generation": 1}
    return made


def job(document: dict[str, Any]) -> Job:
    """The job of a document that is known to be one."""
    read = read_job(document)
    assert isinstance(read, Job), read
    return read


def first_run(of: Job) -> Run:
    """The first run of a job, with its first driver."""
    return claimed(of, None, Observed(), Trigger.SPEC, START).model_copy(update={"attempts": 1})


def manifests(of: Job, settings: Settings = SETTINGS) -> list[dict[str, Any]]:
    """What the operator creates for a job's first run."""
    engine = Engine.LOCAL if of.spec.engine is Engine.AUTO else of.spec.engine
    return build(of, first_run(of), engine, settings)


def expected(name: str) -> str:
    """The output of this name, as it is committed."""
    return (ROOT / "output" / f"{name}.yaml").read_text(encoding="utf-8")


def made(name: str) -> str:
    """The output of this name, as it should be."""
    documents = manifests(job(document(name)))
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def chart() -> str:
    """What the Helm chart makes of its default values, without the CustomResourceDefinitions, which are in crds/."""
    rendered = render({"crds": {"install": False}})
    return "".join(
        f"# {path}\n{yaml.dump_all(made, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=120)}"
        for path, made in sorted(rendered.items())
    )


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is, and what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


if __name__ == "__main__":
    for name in NAMES:
        (ROOT / "output" / f"{name}.yaml").write_text(made(name), encoding="utf-8")
    CHART.write_text(chart(), encoding="utf-8")
    sys.stdout.write(f"{len(NAMES)} files in {ROOT / 'output'}, and {CHART}\n")
