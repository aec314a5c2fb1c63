"""One bucket of a run, from its observations to written files: the unit that engines do wherever they like.

What it needs can be pickled, and what it gives is small. Doing it twice writes the same files twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from almanac.api import Layout
from almanac_jobs import per_entity
from almanac_jobs.artefacts import Files, RunWriter
from almanac_jobs.parts import Recipe, Summary
from almanac_jobs.progress import Progress
from almanac_jobs.source.observations import Observations


@dataclass(frozen=True, slots=True)
class Done:
    """A bucket whose tables are written."""

    bucket: int
    files: Files
    summary: Summary


@dataclass(frozen=True, slots=True)
class BucketWork:
    """What is to be done with every bucket."""

    recipe: Recipe
    writer: RunWriter

    def __call__(self, observations: Observations, bucket: int, progress: Progress) -> Done:
        """Fit the entities of a bucket, whose observations are all there, and write its tables; `progress` counts them.

        Raises:
            JobError: as `Recipe.work` does, DataError for an entity that cannot have a folder where it is to have one,
                and what storage refuses.
        """
        first, last = observations.of_bucket(bucket)
        if self.recipe.spec.output.layout is Layout.PER_ENTITY:
            per_entity.check_names(observations.entities.slice(first, last - first))
        part = self.recipe.work(observations, first, last, progress)
        progress.check()
        return Done(bucket, self.writer.write(bucket, part.tables), part.summary)
