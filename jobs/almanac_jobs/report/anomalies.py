"""report.html of an AnomalyJob: how many rows are flagged, what matters over all, and why the oddest rows are odd.

Pure: data in, text out. Pictures are shap's own, drawn from contributions that the detector has computed.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.report.page import Headline, template
from almanac_jobs.report.words import count, entities, percent

Floats = NDArray[np.float64]

PICTURED = 4
"""Rows that get a picture besides their table."""
SHOWN = 12
"""Features in a picture."""
_MEANINGS = {
    "auc": "chance that an odd row scores higher than another one; 0.5 is guessing",
    "average_precision": "mean precision from the highest score down; guessing gives the share of odd rows",
    "brier": "mean squared difference between probability and truth",
    "brier_skill": "1 less Brier over that of the base rate; 0 is as good as knowing the share of odd rows",
}
_DRAWING = threading.Lock()
"""shap draws by pyplot, of which a process has one."""


@dataclass(frozen=True, slots=True)
class Worst:
    """A flagged row: its keys, its score, what each feature adds to its margin and what all have in common, and its
    values as text."""

    keys: Mapping[str, str]
    score: float
    contributions: Floats
    values: Sequence[str | None]

    def reasons(self, names: Sequence[str], top: int) -> list[tuple[str, str | None, float]]:
        """The features with the largest contributions: name, value, contribution."""
        own = self.contributions[: len(names)]
        order = np.argsort(-np.abs(own), kind="stable")[:top].tolist()
        return [(names[at], self.values[at], float(own[at])) for at in order]


@dataclass(frozen=True, slots=True)
class AnomalyData:
    """All that the page says.

    `first` and `last` are the first and the last time, `notes` say what became of rows, `durations` are seconds by
    stage. `why` says why it is this `detector`, `positives` how many rows are labelled odd (None: there is no label),
    `score_is` probability or share. `measured` are scores on rows held back; none where there are none. `importance`
    is (feature, mean size of its contribution), the largest first, and `survey_...` the rows that it is of. `top` is
    how many reasons are shown.
    """

    job: str
    run: str
    finished: datetime
    manifest: str
    source: str
    rows: int
    entities: int
    first: str
    last: str
    notes: Mapping[str, int]
    durations: Mapping[str, float]
    versions: Mapping[str, str]
    detector: str
    why: str
    positives: int | None
    score_is: str
    calibration: str
    flagged: int
    flagged_entities: int
    features: Sequence[str]
    left_out: Mapping[str, str]
    measured: Mapping[str, float]
    importance: Sequence[tuple[str, float]]
    survey_values: NDArray[np.float32]
    survey_contributions: Floats
    worst: Sequence[Worst]
    top: int


def render(data: AnomalyData) -> str:
    """The page."""
    with _DRAWING:
        beeswarm = _beeswarm(data)
        pictures = [_waterfall(data, one) for one in data.worst[:PICTURED]]
    return template("anomalies.html.jinja").render(
        data=data,
        headline=headline(data),
        meanings=_MEANINGS,
        beeswarm=beeswarm,
        worst=list(zip(data.worst, [*pictures, *[""] * len(data.worst)], strict=False)),
    )


def headline(data: AnomalyData) -> Headline:
    """The run in one line, and what else matters in another."""
    title = f"{count(data.flagged)} of {count(data.rows)} rows are flagged, of {entities(data.flagged_entities)}"
    leading = ", ".join(name for name, _ in data.importance[:3])
    detail = f"Detector {data.detector}: {data.why}. What matters most: {leading}."
    if "auc" not in data.measured:
        why = "that takes labels" if data.positives is None else "labels are too few to hold rows back for it"
        return Headline("plain", title, f"{detail} Not tested: {why}.")
    area, skill = data.measured["auc"], data.measured["brier_skill"]
    tone = "good" if area >= 0.8 and skill > 0 else "mixed"
    return Headline(tone, title, f"{detail} AUC {area:.3f} on the latest rows, Brier skill {percent(max(skill, 0.0))}.")


def _beeswarm(data: AnomalyData) -> str:
    """shap's beeswarm of the survey."""
    import shap

    told = shap.Explanation(
        values=data.survey_contributions[:, : len(data.features)],
        data=data.survey_values,
        feature_names=list(data.features),
    )
    return _picture(lambda: shap.plots.beeswarm(told, max_display=SHOWN, show=False))


def _waterfall(data: AnomalyData, row: Worst) -> str:
    """shap's waterfall of a row."""
    import shap

    told = shap.Explanation(
        values=row.contributions[: len(data.features)],
        base_values=float(row.contributions[-1]),
        data=np.array(["no value" if value is None else value for value in row.values], dtype=object),
        feature_names=list(data.features),
    )
    return _picture(lambda: shap.plots.waterfall(told, max_display=SHOWN, show=False))


def _picture(draw: Callable[[], Any]) -> str:
    """What `draw` draws, as a PNG in base64."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    target = io.BytesIO()
    try:
        draw()
        pyplot.gcf().savefig(target, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    finally:
        pyplot.close("all")
    return base64.b64encode(target.getvalue()).decode("ascii")
