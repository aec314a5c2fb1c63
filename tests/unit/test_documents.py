"""Job files: where documents come from, where problems are, and what `--set` does."""

import io
import json
from pathlib import Path

import pytest
import yaml

from almanac.api import ForecastJob, JobError, Reason
from almanac.documents import DocumentError, load_documents, resolve
from manifests import SMALLEST, document

JOB = """\
apiVersion: almanac.dev/v1alpha1
kind: ForecastJob
metadata: {name: ledger}
spec:
  source:
    uri: s3://ledger/raw
    columns:
      entity: account
      time: date
      value: amount
  output: {uri: s3://ledger/models}
"""


def findings(text: str, *overrides: str) -> list[str]:
    return [
        str(finding).removeprefix("<stdin>:")
        for one in load_documents(["-"], io.BytesIO(text.encode()))
        for finding in one.override(overrides).findings()
    ]


def test_parse() -> None:
    (found,) = load_documents(["-"], io.BytesIO(JOB.encode()))
    assert found.parse() == ForecastJob.parse(SMALLEST)
    assert (found.kind, found.name, found.line, found.is_job, found.foreign) == ("ForecastJob", "ledger", 1, True, None)


def test_json_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(SMALLEST, indent="\t"))
    (found,) = load_documents([str(tmp_path / "job.json")])
    assert found.parse() == ForecastJob.parse(SMALLEST)


LINES = [
    (
        "uri: s3://ledger/raw",
        "uri: s3a://a",
        '6: spec.source.uri: must start with s3:// instead of s3a:// (got "s3a://a")',
    ),
    ("uri: s3://ledger/raw", "url: s3://ledger/raw", "6: spec.source.url: unknown field, did you mean `uri`?"),
    ("      time: date\n", "", "7: spec.source.columns: `time` is missing"),
    ("  output: {uri: s3://ledger/models}\n", "", "4: spec: `output` is missing"),
    ("metadata: {name: ledger}\n", "", "1: `metadata` is missing"),
    ("kind: ForecastJob\n", "", "1: `kind` is missing"),
    ("apiVersion: almanac.dev/v1alpha1\n", "", "1: `apiVersion` is missing"),
    ("v1alpha1", "v1", "1: apiVersion: must be 'almanac.dev/v1alpha1' (got \"almanac.dev/v1\")"),
    ("ForecastJob", "ForecastJobs", '2: kind: must be ForecastJob or AnomalyJob or ExtractJob (got "ForecastJobs")'),
    ("account", "N", "8: spec.source.columns.entity: must be a string: YAML reads N as false, put it into quotes"),
    ("account", "7", "8: spec.source.columns.entity: must be a string: YAML reads 7 as a number, put it into quotes"),
    ("account", "[a]", '8: spec.source.columns.entity: must be a string (got ["a"])'),
    ("amount", "date", "10: spec.source.columns.value: entity, time and value must be three different columns"),
    ("amount", "amount\n      value: x", "11: spec.source.columns.value: is given twice, first on line 10"),
    ("  source:", "  on: true\n  source:", "5: spec: a name must be a string: YAML reads on as true"),
    (
        "  output:",
        "  model:\n    order:\n      - 1\n      - 3\n      - 1\n  output:",
        "14: spec.model.order[1]: must be",
    ),
    ("  output:", "  model: {seasonalOrder: [1, 0, 0]}\n  output:", "11: spec.model.seasonLength: must be above 1"),
    ("  output:", "  horizon:\n    14.5\n  output:", "12: spec.horizon: must be a whole number (got 14.5)"),
    ("s3://ledger/models", "s3://ledger/raw/x", "11: spec.output.uri: must not lie inside source.uri"),
]


@pytest.mark.parametrize(("old", "new", "expected"), LINES)
def test_lines(old: str, new: str, expected: str) -> None:
    assert old in JOB
    (only,) = findings(JOB.replace(old, new, 1))
    assert only.startswith(expected)


def test_an_alias_is_wrong_where_it_is_used() -> None:
    text = "---\n" + JOB.replace("{name: ledger}", "{name: ledger, annotations: {note: &zone Mars}}")
    assert findings(text + "  timeZone: *zone\n") == [
        '13: spec.timeZone: must be a time zone such as UTC or Europe/Berlin (got "Mars")'
    ]


def test_every_document_is_looked_at() -> None:
    broken = JOB.replace("amount", "date")
    text = f"{broken}---\napiVersion: v1\nkind: ConfigMap\n---\n{broken}  horizon: 0\n---\n- 1\n---\na: ]\n"
    assert [one.split(": ")[0] for one in findings(text)] == ["10", "25", "27", "29", "31"]


def test_a_list_is_its_items() -> None:
    items = [SMALLEST, document(horizon=0), {"apiVersion": "v1", "kind": "Secret"}]
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}, sort_keys=False)
    documents = load_documents(["-"], io.BytesIO(text.encode()))
    assert [one.foreign for one in documents] == [None, None, "Secret is no kind of Almanac's"]
    assert documents[0].parse() == ForecastJob.parse(SMALLEST)
    (only,) = findings(text)
    line = next(number for number, one in enumerate(text.splitlines(), 1) if "horizon" in one)
    assert only == f"{line}: spec.horizon: must be at least 1 (got 0)"


def test_faults_of_a_list_belong_to_its_items() -> None:
    job = JOB.replace("\n", "\n  ").rstrip() + "\n    suspend: true\n    suspend: false\n"
    text = f"apiVersion: v1\nkind: List\nkind: List\nitems:\n- {job}"
    assert findings(text) == [
        "3: kind: is given twice, first on line 2",
        "17: spec.suspend: is given twice, first on line 16",
    ]


def test_not_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("replicas: 1\n")
    (found,) = load_documents([str(tmp_path)])
    assert found.foreign == "no Kubernetes object"
    (named,) = load_documents([str(tmp_path / "values.yaml")])
    assert [finding.problem.message for finding in named.findings()] == ["`apiVersion` is missing", "`kind` is missing"]


def test_folders_are_searched(tmp_path: Path) -> None:
    for name in ("b/c/x.yml", "a.yaml", "b/d.json", ".git/e.yaml", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(JOB)
    assert [one.file for one in load_documents([str(tmp_path)])] == [
        str(tmp_path / name) for name in ("a.yaml", "b/c/x.yml", "b/d.json")
    ]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"nothing\.yaml: there is no such file") as caught:
        load_documents([str(tmp_path / "nothing.yaml")])
    assert (caught.value.reason, caught.value.exit_code) == (Reason.SOURCE_NOT_FOUND, 66)
    with pytest.raises(JobError, match=r"the folder holds no \.json, \.yaml, \.yml file"):
        load_documents([str(tmp_path)])
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe4\n")
    (found,) = load_documents([str(tmp_path / "latin.yaml")])
    assert [str(finding) for finding in found.findings()] == [f"{tmp_path}/latin.yaml:2: is not UTF-8 text"]


def test_parse_raises_everything() -> None:
    (found,) = load_documents(["-"], io.BytesIO(f"{JOB}  horizon: 0\n  floor: x\n".encode()))
    with pytest.raises(DocumentError) as caught:
        found.parse()
    assert caught.value.exit_code == 64
    assert str(caught.value).splitlines() == [
        "<stdin>:12: spec.horizon: must be at least 1 (got 0)",
        '<stdin>:13: spec.floor: must be a number (got "x")',
    ]


class TestOverride:
    def job(self, *assignments: str) -> ForecastJob:
        (found,) = load_documents(["-"], io.BytesIO(JOB.encode()))
        job = found.override(assignments).parse()
        assert isinstance(job, ForecastJob)
        assert found.parse() == ForecastJob.parse(SMALLEST)  # the document itself is as it was
        return job

    def test_sets(self) -> None:
        assert self.job("spec.horizon=14").spec.horizon == 14
        assert self.job("spec.model.order=[2, 1, 0]").spec.model.order == (2, 1, 0)
        assert self.job("spec.source.filter=status == 'posted'").spec.source.filter == "status == 'posted'"
        assert self.job("spec.storage={region: eu-1}", "spec.storage.secretName=s").spec.storage is not None
        assert self.job("spec.spark.conf.spark.sql.shuffle.partitions='9'").spec.spark.conf == {
            "spark.sql.shuffle.partitions": "9"
        }
        assert self.job("spec.podTemplate.spec.nodeSelector={disk: ssd}").spec.pod_template.spec == {
            "nodeSelector": {"disk": "ssd"}
        }
        assert self.job("metadata.name=other", "metadata.labels.team=x").metadata.name == "other"

    def test_nothing_unsets(self) -> None:
        assert self.job("spec.horizon=14", "spec.horizon=").spec.horizon == 30

    def test_a_problem_of_it_is_told_as_such(self) -> None:
        assert findings(JOB, "spec.horizon=0") == ["--set spec.horizon=0: spec.horizon: must be at least 1 (got 0)"]

    @pytest.mark.parametrize(
        ("assignment", "words"),
        [
            ("spec.horizn=1", "there is no field spec.horizn, did you mean spec.horizon?"),
            ("horizon=1", "there is no field horizon, did you mean spec.horizon?"),
            ("model.order=[1, 1, 1]", "did you mean spec.model.order?"),
            ("spec.source.colour=1", "there is no field spec.source.colour"),
            ("status.phase=x", "there is no field status"),
            ("spec.horizon", "write path=value"),
            ("=3", "there is no field"),
            ("spec.horizon.x=1", "spec.horizon holds no further fields"),
            ("spec.intervals.0=1", "spec.intervals holds no further fields: set it as a whole, spec.intervals=..."),
            ("spec.model=[", "the value is not valid YAML"),
        ],
    )
    def test_refused(self, assignment: str, words: str) -> None:
        with pytest.raises(JobError) as caught:
            self.job(assignment)
        assert caught.value.exit_code == 64
        assert str(caught.value).startswith(f"--set {assignment}: ")
        assert words in str(caught.value)

    def test_resolve(self) -> None:
        assert resolve(ForecastJob, "spec") == ("spec",)
        assert resolve(ForecastJob, "spec.spark.conf.spark.a.b") == ("spec", "spark", "conf", "spark.a.b")
        assert resolve(ForecastJob, "spec.podTemplate.metadata.labels.a") == (
            "spec",
            "podTemplate",
            "metadata",
            "labels",
            "a",
        )
