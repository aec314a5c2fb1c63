"""What runs in drivers and workers, and reads their results: `almanac_jobs.load(uri)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from almanac.api import Storage
    from almanac_jobs.extracted import Extract
    from almanac_jobs.model import EntityModel, Model
    from almanac_jobs.scoring import AnomalyRun


def load(uri: str, storage: Storage | None = None) -> Model | EntityModel | AnomalyRun | Extract:
    """The newest complete run below an output's URI, or the run whose folder `uri` is: see `almanac_jobs.model.Model`.

    For the folder of an entity (`layout: perEntity`) it is that entity's model alone, for a run of an AnomalyJob a
    detector: see `almanac_jobs.scoring.AnomalyRun`; for a run of an ExtractJob a data set: `almanac_jobs.extracted`.

    `storage` is as in a job; without it, the environment decides how object storage is reached.

    Raises:
        JobError: if there is no complete run, it is of a newer format, or storage refuses.
    """
    from almanac_jobs import model  # not before it is needed: workers import this package, too

    return model.load(uri, storage)
