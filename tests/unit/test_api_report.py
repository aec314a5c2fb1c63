"""Exit codes, reasons and the report of a run."""

import json

from hypothesis import given
from hypothesis import strategies as st

from almanac.api import Engine, ExitCode, JobError, Reason, Report, Result
from almanac.api.report import LIMIT


def test_every_reason_has_an_exit_code() -> None:
    assert {int(reason.exit_code) for reason in Reason} == {0, 1, 64, 65, 66, 75, 77, 79, 130}
    assert {code for code in ExitCode if code.worth_a_retry} == {1, 75, 130, 143}


def test_failure() -> None:
    report = Report.failure("r1", Engine.LOCAL, JobError(Reason.DATA_ERROR, "column `x` is missing"))
    assert json.loads(report.to_json()) == {
        "run": "r1",
        "reason": "DataError",
        "exitCode": 65,
        "message": "column `x` is missing",
        "engine": "local",
        "engineReason": "",
    }


@given(
    message=st.text(max_size=9000),
    scores=st.dictionaries(st.text(max_size=40), st.floats(allow_nan=False, allow_infinity=False), max_size=200),
)
def test_a_report_fits_and_is_read_again(message: str, scores: dict[str, float]) -> None:
    result = Result(uri="s3://bucket/runs/1", entities=3, rows=9, scores=scores)
    report = Report(
        run="r1", reason=Reason.COMPLETED, exit_code=ExitCode.DONE, message=message, engine=Engine.SPARK, result=result
    )
    text = report.to_json()
    assert len(text.encode()) <= LIMIT
    again = Report.model_validate_json(text)
    assert again.result is not None
    assert (again.run, again.exit_code, again.result.uri) == ("r1", 0, "s3://bucket/runs/1")
    assert message.startswith(again.message.removesuffix("…")) or again.message == message
    if len(report.model_dump_json(exclude_none=True).encode()) <= LIMIT:
        assert again == report
