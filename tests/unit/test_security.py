"""What a tenant of a namespace could try with a job, and what stops it: the table of docs/security.md.

A tenant may create jobs, and neither pods nor Secrets nor anything in other namespaces. What the operator makes for a
job must give no right that its author does not have.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import almanac_jobs
import goldens
from almanac import names
from almanac.api import Engine, Job, JobError, checks
from almanac.cli import main
from almanac.engines import build
from almanac.resource import read_job
from almanac_jobs.model import Model
from almanac_jobs.storage import open_location
from ledgers import job as ledger_job
from ledgers import ledger, write_parquet
from manifests import document
from s3 import S3Server

Raw = dict[str, Any]

MAIN = names.CONTAINER


def read(**spec: Any) -> Job | JobError:
    """What the operator makes of a job that a tenant has applied."""
    made = document(**spec)
    made["metadata"] |= {"uid": goldens.UID, "generation": 1, "namespace": "tenant"}
    return read_job(made)


def pods(engine: Engine = Engine.LOCAL, **spec: Any) -> tuple[list[Raw], Raw]:
    """All that the operator creates for a job, and the spec of its driver's pod."""
    found = read(**spec)
    assert isinstance(found, Job), found
    made = build(found, goldens.first_run(found), engine, goldens.SETTINGS)
    return made, made[-1]["spec"]["template"]["spec"]


def refused(**spec: Any) -> str:
    """Why the operator refuses a job."""
    found = read(**spec)
    assert isinstance(found, JobError), found
    return found.message


# --- the pod template ------------------------------------------------------------------------------------------------


def container(**fields: Any) -> Raw:
    return {"containers": [{"name": MAIN, **fields}]}


def beside(field: str, **fields: Any) -> Raw:
    return {field: [{"name": "mine", "image": "mine", **fields}]}


@pytest.mark.parametrize("place", ["containers", "initContainers"])
@pytest.mark.parametrize(
    "context",
    [
        {"privileged": True},
        {"allowPrivilegeEscalation": True},
        {"runAsUser": 0},
        {"runAsNonRoot": False},
        {"procMount": "Unmasked"},
        {"capabilities": {"add": ["SYS_ADMIN"]}},
        {"capabilities": {"drop": []}},
        {"seccompProfile": {"type": "Unconfined"}},
        {"appArmorProfile": {"type": "Unconfined"}},
        {"seLinuxOptions": {"type": "spc_t"}},
        {"windowsOptions": {"hostProcess": True}},
    ],
    ids=str,
)
def test_no_privileged_container(place: str, context: Raw) -> None:
    """Neither the run's own, nor one beside it, nor one before it."""
    (field,) = context
    for spec in (beside(place, securityContext=context), container(securityContext=context)):
        assert f"securityContext.{field}: is not allowed" in refused(podTemplate={"spec": spec})


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC"])
def test_nothing_of_the_host(field: str) -> None:
    assert f"spec.podTemplate.spec.{field}: must not be true" in refused(podTemplate={"spec": {field: True}})


@pytest.mark.parametrize(
    "kind", ["hostPath", "nfs", "iscsi", "glusterfs", "gitRepo", "flexVolume", "rbd", "fc", "local", "image"]
)
def test_no_volume_of_the_host(kind: str) -> None:
    volumes = {"volumes": [{"name": "root", kind: {"path": "/"}}]}
    assert f"volumes[0].{kind}: is no volume that a run may mount" in refused(podTemplate={"spec": volumes})


def test_a_sub_path_leads_nowhere_without_a_volume_of_the_host() -> None:
    """`subPath: ../..` is the kubelet's to refuse, and the volumes that are left hold nothing of the host."""
    mounts = container(volumeMounts=[{"name": "root", "mountPath": "/host", "subPath": "../../.."}])
    volumes = {"volumes": [{"name": "root", "hostPath": {"path": "/var/lib/kubelet"}}]}
    assert "volumes[0].hostPath" in refused(podTemplate={"spec": mounts | volumes})


@pytest.mark.parametrize("path", ["/etc/almanac", "/etc/almanac/", "/etc/almanac/job.json"])
def test_the_jobs_own_file_cannot_be_covered(path: str) -> None:
    spec = container(volumeMounts=[{"name": "x", "mountPath": path}]) | {"volumes": [{"name": "x", "emptyDir": {}}]}
    assert "is where the job's file lies" in refused(podTemplate={"spec": spec})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("serviceAccountName", "admin"),
        ("serviceAccount", "admin"),
        ("automountServiceAccountToken", True),
        ("nodeName", "control-plane-1"),
        ("ephemeralContainers", [{"name": "debug", "image": "x"}]),
        ("restartPolicy", "Always"),
    ],
)
def test_what_makes_a_driver_is_not_the_templates(field: str, value: Any) -> None:
    assert f"spec.podTemplate.spec.{field}: cannot be set" in refused(podTemplate={"spec": {field: value}})


@pytest.mark.parametrize("field", ["command", "args", "workingDir", "terminationMessagePath"])
def test_the_runs_own_container_runs_a_run(field: str) -> None:
    spec = container(**{field: ["sh"] if field in ("command", "args") else "/x"})
    assert f"containers[0].{field}: cannot be set" in refused(podTemplate={"spec": spec})


@pytest.mark.parametrize("label", [names.JOB_UID, names.RUN, names.MANAGED_BY, names.COMPONENT])
def test_a_pod_cannot_pass_for_another_jobs(label: str) -> None:
    """By labels the operator tells whose pod it is."""
    assert "is Almanac's own" in refused(podTemplate={"metadata": {"labels": {label: "x"}}})


@pytest.mark.parametrize("field", ["namespace", "name", "ownerReferences", "finalizers"])
def test_a_pod_is_the_jobs_own_and_in_its_namespace(field: str) -> None:
    assert f"metadata.{field}: is not read" in refused(podTemplate={"metadata": {field: "kube-system"}})


# --- rights and secrets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Engine.LOCAL, Engine.SPARK])
def test_everything_is_created_in_the_jobs_namespace(engine: Engine) -> None:
    """So that the Secrets, ConfigMaps, claims and service accounts that it may name are those of its own namespace."""
    made, _ = pods(engine, storage={"secretName": "keys"}, serviceAccountName="reader")
    assert {one["metadata"]["namespace"] for one in made} == {"tenant"}
    for one in made:
        assert one["kind"] not in ("ClusterRole", "ClusterRoleBinding", "Secret")


@pytest.mark.parametrize("name", ["other/keys", "../other/keys", "keys\n", "other.keys/..", "Keys"])
def test_a_secret_is_named_and_not_found_elsewhere(name: str) -> None:
    assert "spec.storage.secretName" in refused(storage={"secretName": name})


def test_a_driver_in_one_pod_has_no_token() -> None:
    """Whatever its service account may do, it may not be done with it, unless the tenant mounts a token of its own."""
    _, pod = pods(serviceAccountName="powerful")
    assert pod["automountServiceAccountToken"] is False
    assert not [one for one in pod["volumes"] if "projected" in one]


def test_a_driver_on_spark_may_have_pods_and_nothing_else() -> None:
    made, _ = pods(Engine.SPARK)
    (role,) = [one for one in made if one["kind"] == "Role"]
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"pods"}
    assert not any("*" in rule["verbs"] for rule in role["rules"])


def test_a_token_that_a_tenant_projects_is_of_the_pods_own_service_account() -> None:
    """A projected volume names no account: it is the pod's, which the tenant may choose in its namespace anyway."""
    source = {"serviceAccountToken": {"path": "token", "audience": "vault"}}
    spec = {"volumes": [{"name": "token", "projected": {"sources": [source]}}]}
    made, pod = pods(podTemplate={"spec": spec})
    assert [one for one in pod["volumes"] if one["name"] == "token"] == spec["volumes"]
    assert "serviceAccountName" not in pod or pod["serviceAccountName"] == goldens.SETTINGS.service_account
    assert {one["kind"] for one in made} == {"ConfigMap", "Job"}


# --- Spark's settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "spark.master",
        "spark.kubernetes.namespace",
        "spark.kubernetes.authenticate.serviceAccountName",
        "spark.kubernetes.authenticate.executor.serviceAccountName",
        "spark.kubernetes.authenticate.oauthToken",
        "spark.kubernetes.executor.podTemplateFile",
        "spark.kubernetes.executor.container.image",
        "spark.kubernetes.container.image",
        "spark.kubernetes.executor.volumes.hostPath.root.mount.path",
        "spark.kubernetes.driver.volumes.hostPath.root.options.path",
        "spark.kubernetes.executor.secrets.other",
        "spark.kubernetes.executor.label.almanac.dev/job-uid",
        "spark.kubernetes.driver.pod.name",
        "spark.kubernetes.executor.scheduler.name",
    ],
)
def test_spark_settings_are_no_way_around_the_template(setting: str) -> None:
    assert "spec.spark.conf" in refused(engine="spark", spark={"conf": {setting: "x"}})


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16"),
        *("2852039166", "0xA9FEA9FE", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518", "169.16689662"),
        *("[fd00:ec2::254]", "[FD00:EC2:0:0::254]", "[fe80::1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"),
        *("[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[::169.254.169.254]", "[fd20:ce::254]"),
        *("metadata.google.internal", "METADATA.GOOGLE.INTERNAL.", "metadata", "instance-data", "metadata.goog"),
        *("169.254.169.254.", "１６９.254.169.254", "169。254。169。254"),
    ],
)
def test_an_endpoint_is_no_metadata_service(host: str) -> None:
    told = refused(storage={"endpoint": f"http://{host}/latest/meta-data"})
    assert told.startswith("spec.storage.endpoint: must be a store")


@pytest.mark.parametrize(
    "host", ["10.0.0.5:9000", "minio.storage:9000", "metadata.finance.svc", "[fd00::5]:9000", "[2001:db8::1]", "minio"]
)
def test_an_endpoint_is_any_other_store(host: str) -> None:
    assert checks.endpoint(f"https://{host}") == f"https://{host}"


def test_a_bucket_is_never_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """`s3://169.254.169.254/x` asks the store for a bucket of that name."""
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        place = open_location("s3://169.254.169.254/latest/meta-data", None, field="spec.source.uri")
        assert place.filesystem.get_file_info(place.path).type.name == "NotFound"
        assert {one["PATH_INFO"].split("/")[1] for one in server.requests} == {"169.254.169.254"}


# --- files that are not what they seem --------------------------------------------------------------------------------


def test_a_billion_laughs(tmp_path: Path) -> None:
    """`almanac validate` and `almanac run`: each alias counts as what it stands for."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in pairwise("abcdefghi"):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    (tmp_path / "bomb.yaml").write_text(f"{bomb}{yaml.safe_dump(document())}")
    for command in ("validate", "run"):
        result = CliRunner().invoke(main, [command, "-f", str(tmp_path / "bomb.yaml")])
        assert result.exit_code not in (0, None)
        assert "holds more than 100,000 values, with its aliases written out" in result.output


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['id']", "!!python/name:os.system", "!include /etc"])
def test_a_tag_of_yaml_makes_nothing(tag: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"{yaml.safe_dump(document())}\nx: {tag}\n")
    result = CliRunner().invoke(main, ["validate", "-f", str(tmp_path / "job.yaml")])
    assert result.exit_code != 0
    assert "has the tag" in result.output


NASTY = [
    "../../x",
    "/etc/cron.d/x",
    "a/b",
    "..",
    ".",
    "",
    "runs",
    "latest.json",
    "<script>alert(1)</script>",
    "\x00",
    "a\nb",
]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of entities with names that somebody has chosen with care, a folder for each."""
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("nasty")
    table = ledger(len(NASTY), 40)
    entities = table["account"].combine_chunks().dictionary_encode()
    named = pa.DictionaryArray.from_arrays(entities.indices, pa.array(NASTY)).cast(pa.string())
    lake = write_parquet(table.set_column(0, "account", named), folder / "lake" / "t.parquet")
    made = ledger_job(lake, folder / "deep" / "deeper" / "out", output__layout="perEntity")
    result = CliRunner().invoke(main, ["run", "-f", "-", "--quiet"], input=yaml.safe_dump(made))
    assert result.exit_code == 0, result.output
    return folder


def test_an_entity_is_no_path(nasty: Path) -> None:
    """Nothing is written but below the output, and every entity is found by its name."""
    inside = nasty / "deep" / "deeper" / "out"
    files = [path for path in nasty.rglob("*") if path.is_file()]
    assert {path for path in files if inside not in path.parents} == {nasty / "lake" / "t.parquet"}
    model = almanac_jobs.load(str(inside))
    assert isinstance(model, Model)
    assert sorted(model.entities.to_pylist()) == sorted(NASTY)
    for entity in NASTY:
        assert model.forecasts(entity).num_rows == 7


def test_an_entity_is_no_html(nasty: Path) -> None:
    (page,) = (nasty / "deep" / "deeper" / "out" / "runs").glob("*/report.html")
    text = page.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
