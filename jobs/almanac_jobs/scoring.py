"""A complete run of an AnomalyJob, read back: what it has flagged and why, and scores and reasons of other rows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before XGBoost: its threads otherwise spin where cores are shared

import numpy as np
import pyarrow as pa

from almanac.api import JobError, Reason
from almanac_jobs import objects
from almanac_jobs.anomaly import artefact, explanations
from almanac_jobs.anomaly.artefact import Model
from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Flags, Floats
from almanac_jobs.judged import prepared
from almanac_jobs.model import Findings
from almanac_jobs.storage import Location


@dataclass(frozen=True, slots=True, repr=False)
class AnomalyRun(Findings):
    """A detector, and what the run that has trained it has found.

    A frame is an Arrow table, or what `pyarrow.table` takes (a pandas frame, a mapping of columns), with the columns
    that the source of the job has: the features', and with preset ledger entity and time, besides which rows of the run
    that are earlier than all of the frame count as its past.
    """

    model: Model

    @classmethod
    def load(cls, folder: Location, report: dict[str, Any]) -> AnomalyRun:
        """The run in a folder.

        Raises:
            JobError: as `almanac_jobs.anomaly.artefact.load` does.
        """
        return cls(folder, report, artefact.load(lambda path: objects.read(folder / path), folder.uri))

    def score(self, frame: Any) -> pa.Table:
        """The score of each row of a frame, in its order: columns score, margin, flagged.

        A value of a string that the run has not seen is rarer than all that it has. Rows that the run was made of get
        the scores that it has written, if the frame holds no part of its past only.

        Raises:
            JobError: DataError for columns that are missing, of another type, or infinite.
        """
        _, margins = self._judged(frame)
        return _scored(self.model.scale.scores(margins), margins, self.model.flags(margins))

    def explain(self, frame: Any, top_k: int | None = None) -> pa.Table:
        """Why each row of a frame has its score: one row a row and reason, the strongest first.

        Columns: row (its number in the frame), score, rank, feature, value, contribution, direction. `top_k` is the
        job's by default.

        Raises:
            JobError: as `score` does.
        """
        values, margins = self._judged(frame)
        top = top_k or int(self.report["spec"]["explain"]["topK"])
        shown = [one.shown(values[:, at]) for at, one in enumerate(self.model.schema.features)]
        told = explanations.reasons(self.model.schema.names, shown, self.model.trained.contributions(values), top)
        rows = pa.table({"row": pa.array(np.arange(len(values)))})
        return explanations.table(rows, self.model.scale.scores(margins), told)

    def _judged(self, frame: Any) -> tuple[Floats32, Floats]:
        values = prepared(_table(frame), self.model.schema, self.model.ledger, self._history())
        return values, self.model.margins(values)

    def _history(self) -> pa.Table | None:
        """What preset ledger has seen, with the columns' own names."""
        ledger = self.model.ledger
        if ledger is None:
            return None
        past = pa.concat_tables(self.parts("ledger"))
        own = {"entity": ledger.entity, "time": ledger.time}
        return past.rename_columns([own.get(name, name) for name in past.column_names]).select(list(ledger.needed))


def _table(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    try:
        return pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        words = " ".join(str(error).split())
        raise JobError(Reason.DATA_ERROR, f"frame: cannot be made an Arrow table: {words}") from error


def _scored(scores: Floats, margins: Floats, flags: Flags) -> pa.Table:
    return pa.table({"score": pa.array(scores), "margin": pa.array(margins), "flagged": pa.array(flags)})
