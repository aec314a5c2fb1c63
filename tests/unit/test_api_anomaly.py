"""AnomalyJob: defaults, what is refused and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from almanac.api import AnomalyJob, problems
from anomalies import SMALLEST, document


def told(value: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        AnomalyJob.parse(value)
    return [str(one) for one in problems(caught.value)]


def test_defaults() -> None:
    spec = AnomalyJob.parse(SMALLEST).spec.model_dump(mode="json")
    own = {name: spec[name] for name in ("features", "label", "model", "contamination", "threshold", "explain")}
    assert own == {
        "features": {
            "columns": None,
            "exclude": [],
            "preset": "none",
            "ledger": {"amount": "amount", "user": None, "counterparty": None},
        },
        "label": None,
        "model": {
            "detector": "auto",
            "rounds": 200,
            "earlyStopping": 20,
            "seed": 0,
            "eta": 0.1,
            "max_depth": 6,
            "min_child_weight": 1.0,
            "subsample": 1.0,
            "colsample_bytree": 1.0,
            "lambda": 1.0,
            "alpha": 0.0,
            "gamma": 0.0,
            "max_bin": 256,
            "scale_pos_weight": 1.0,
        },
        "contamination": None,
        "threshold": None,
        "explain": {"topK": 5},
    }
    assert "spark" not in spec  # what would be read by nobody is not there


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"contamination": 0}, "spec.contamination: must be above 0 (got 0)"),
        ({"contamination": 1}, "spec.contamination: must be at most 0.5 (got 1)"),
        ({"model": {"maxDepth": 3}}, "spec.model.maxDepth: unknown field, did you mean `max_depth`?"),
        ({"spark": {}}, "spec.spark: unknown field"),
        (
            {"model__detector": "blend"},
            "spec.label: is missing: detectors classifier and blend learn from it. Name its column, or choose student",
        ),
        (
            {"threshold": 0.5, "contamination": 0.1},
            "spec.threshold: and contamination cannot both be set: leave one of the two out (got 0.5)",
        ),
        (
            {"engine": "spark"},
            "spec.engine: cannot be spark: XGBoost trains in one process or on Dask. Write auto, local or dask "
            '(got "spark")',
        ),
    ],
)
def test_words(fields: dict[str, Any], words: str) -> None:
    assert told(document(**fields)) == [words]


def test_the_hash_follows_what_changes_results() -> None:
    base = AnomalyJob.parse(SMALLEST).spec.hash
    assert AnomalyJob.parse(document(model__rounds=200, suspend=True)).spec.hash == base
    assert AnomalyJob.parse(document(model__seed=1)).spec.hash != base
