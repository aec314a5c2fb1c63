"""The engine local: one pod, which reads, fits and writes in its own process."""

from __future__ import annotations

from almanac import manifests
from almanac.api import Engine, Job, Run
from almanac.manifests import Manifest
from almanac.settings import Settings


def build(job: Job, run: Run, settings: Settings) -> list[Manifest]:
    """The manifests of a run on one pod: its job as a ConfigMap, and its driver."""
    account = job.spec.service_account_name or settings.service_account
    container = manifests.container(job, settings.image, command=manifests.COMMAND, **manifests.telling(run))
    labels = manifests.labels(job, run, Engine.LOCAL)
    spec = manifests.pod_spec(job, run, account, container)
    pod = manifests.template(job, labels, spec, settings.cpu, settings.memory)
    return [manifests.config_map(job, run, Engine.LOCAL), manifests.driver(job, run, Engine.LOCAL, pod)]
