"""The engine local: one pod, which reads, fits and writes in its own process."""

from __future__ import annotations

from almanac.api import Engine, Job, Run
from almanac.manifests import Manifest, config_map, driver
from almanac.settings import Settings


def build(job: Job, run: Run, settings: Settings) -> list[Manifest]:
    """The manifests of a run on one pod: its job as a ConfigMap, and its driver."""
    return [config_map(job, run, Engine.LOCAL), driver(job, run, Engine.LOCAL, settings)]
