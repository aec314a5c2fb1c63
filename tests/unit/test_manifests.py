"""What the operator creates: the same as the golden files, and true to laws that hold for every manifest."""

import json
from collections.abc import Iterator
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import goldens
from almanac import manifests, names
from almanac.api import AnomalyJob, Engine, ExitCode, ForecastJob, Job, JobError
from almanac.engines import COMPANIONS, ENGINES, dask, spark
from almanac.lifecycle import ENGINES as STARTABLE
from almanac.resource import read_job
from almanac.settings import Settings
from manifests import document
from restricted import is_restricted

Manifest = dict[str, Any]


@pytest.mark.parametrize("name", goldens.NAMES)
def test_outputs_are_as_committed(name: str) -> None:
    """`python tests/goldens.py` writes them anew."""
    assert goldens.made(name) == goldens.expected(name)


# Templates as people write them, and as they should not.
containers = st.fixed_dictionaries(
    {"name": st.sampled_from(["almanac", "audit"]), "image": st.just("registry.example/x:1")},
    optional={
        "env": st.just([{"name": "OMP_NUM_THREADS", "value": "2"}, {"name": "X", "value": "y"}]),
        "envFrom": st.just([{"secretRef": {"name": "more"}}]),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "requests": st.fixed_dictionaries({}, optional={"cpu": st.just("2"), "memory": st.just("1Gi")}),
                "limits": st.fixed_dictionaries({}, optional={"cpu": st.just(4), "nvidia.com/gpu": st.just(1)}),
            },
        ),
        "securityContext": st.fixed_dictionaries(
            {},
            optional={
                "runAsUser": st.sampled_from([0, 185]),
                "runAsNonRoot": st.booleans(),
                "privileged": st.booleans(),
                "allowPrivilegeEscalation": st.booleans(),
                "readOnlyRootFilesystem": st.booleans(),
                "capabilities": st.sampled_from(
                    [{"add": ["SYS_ADMIN"]}, {"add": ["NET_BIND_SERVICE"]}, {"drop": []}, {"drop": ["ALL"]}]
                ),
                "seccompProfile": st.sampled_from([{"type": "Unconfined"}, {"type": "RuntimeDefault"}]),
            },
        ),
        "volumeMounts": st.just([{"name": "data", "mountPath": "/data"}]),
        "ports": st.sampled_from([[{"containerPort": 80, "hostPort": 80}], [{"containerPort": 8080}]]),
    },
)
volumes = st.sampled_from([{"emptyDir": {}}, {"hostPath": {"path": "/"}}, {"secret": {"secretName": "s"}}])
specs = st.fixed_dictionaries(
    {},
    optional={
        "containers": st.lists(containers, max_size=2, unique_by=lambda one: one["name"]),
        "volumes": st.lists(volumes, max_size=1).map(lambda found: [{"name": "data", **one} for one in found]),
        "hostNetwork": st.booleans(),
        "serviceAccountName": st.just("admin"),
        "automountServiceAccountToken": st.booleans(),
        "enableServiceLinks": st.booleans(),
        "securityContext": st.sampled_from([{"runAsUser": 0}, {"runAsUser": 185}, {"runAsNonRoot": False}]),
        "nodeSelector": st.just({"pool": "batch"}),
        "restartPolicy": st.sampled_from(["Always", "Never"]),
    },
)


def pod_specs(all_of: list[Manifest]) -> Iterator[Manifest]:
    for one in all_of:
        if one["kind"] == "Job":
            yield one["spec"]["template"]["spec"]
    yield from (one["spec"] for one in (*executors(all_of), *parts(all_of).values()))


def parts(all_of: list[Manifest]) -> dict[str, Manifest]:
    """The templates that dask-kubernetes makes pods from, by component."""
    clusters = [one["spec"] for one in all_of if one["kind"] == "DaskCluster"]
    return {name: one[name] for one in clusters for name in (names.SCHEDULER, names.WORKER)}


def executors(all_of: list[Manifest]) -> list[Manifest]:
    """The templates that Spark makes executors from."""
    files = [one["data"] for one in all_of if one["kind"] == "ConfigMap"]
    return [json.loads(one[spark.TEMPLATE_FILE]) for one in files if spark.TEMPLATE_FILE in one]


def settings_of(all_of: list[Manifest]) -> dict[str, str]:
    """Spark's settings."""
    (text,) = [one["data"][spark.CONF_FILE] for one in all_of if one["kind"] == "ConfigMap"]
    return dict(line.split("=", 1) for line in text.splitlines())


def obeys(made: list[Manifest], of: Manifest, versions: tuple[str, ...] = ("1.33",)) -> None:
    """The laws over all manifests of a job."""
    for one in made:
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["name"]) == (goldens.UID, True, of["metadata"]["name"])
        labels = one["metadata"]["labels"]
        assert labels[names.MANAGED_BY] == "almanac"
        assert labels[names.JOB_UID] == goldens.UID
        assert not set(labels) & set(of["metadata"].get("labels", {}))
        assert one["metadata"]["namespace"] == of["metadata"].get("namespace", "default")
        for version in versions if one["kind"] != "DaskCluster" else ():
            kubernetes_validate.validate(one, version, strict=True)
    assert made[-1]["kind"] == "Job"
    for template in executors(made):
        assert (
            template["metadata"]["labels"].items() >= {names.JOB_UID: goldens.UID, names.COMPONENT: "executor"}.items()
        )
        for version in versions:
            named = template | {"metadata": template["metadata"] | {"name": "x"}}
            kubernetes_validate.validate(named, version, strict=True)
    for component, template in parts(made).items():
        labels = template["metadata"]["labels"]
        assert labels.items() >= {names.JOB_UID: goldens.UID, names.COMPONENT: component}.items()
        for version in versions:
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": "x"}}
            kubernetes_validate.validate(pod | {"spec": template["spec"]}, version, strict=True)
    driver = made[-1]["spec"]["template"]["spec"]
    on_spark = made[-1]["metadata"]["labels"][names.ENGINE] == "spark"
    assert bool(executors(made)) is on_spark
    for spec in pod_specs(made):
        assert is_restricted(spec)
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is (spec is driver and on_spark)
        of_dask = any(spec is one["spec"] for one in parts(made).values())
        assert spec["restartPolicy"] == ("Always" if of_dask else "Never")
        (main,) = [one for one in spec["containers"] if one["name"] == names.CONTAINER]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(main["resources"][kind])
        assert "OMP_NUM_THREADS" in [one["name"] for one in main["env"]]


@pytest.mark.parametrize("name", goldens.NAMES)
def test_golden_files_obey_the_laws(name: str) -> None:
    of = goldens.document(name)
    before = deepcopy(of)
    obeys(goldens.manifests(goldens.job(of)), of, ("1.31", "1.33", "1.37"))
    assert of == before


@given(specs, st.sampled_from(["local", "spark", "dask"]))
@settings(max_examples=150, deadline=None)
def test_a_pod_template_obeys_the_laws_or_is_refused(spec: Manifest, engine: str) -> None:
    of = document(podTemplate={"spec": spec}, engine=engine)
    of["metadata"] |= {"uid": goldens.UID, "labels": {"argocd.argoproj.io/instance": "x"}}
    before = deepcopy(of)
    read = read_job(of)
    if isinstance(read, JobError):
        assert read.message.startswith("spec.podTemplate.spec.")
    else:
        obeys(goldens.manifests(read), of)
    assert of == before


def test_building_twice_gives_the_same_and_changes_nothing() -> None:
    job = goldens.job(goldens.document("pod-template"))
    first = goldens.manifests(job)
    kept = deepcopy(first)
    first[-1]["spec"]["template"]["spec"]["containers"][0]["env"].clear()
    assert goldens.manifests(job) == kept


def test_the_driver_reads_its_job_without_the_pod_template() -> None:
    job = goldens.job(goldens.document("pod-template"))
    config, _ = goldens.manifests(job)
    read = read_job(json.loads(config["data"][manifests.JOB_FILE]))
    assert not isinstance(read, JobError)
    assert read.spec.pod_template.spec == {}
    assert read.spec.source == job.spec.source


def test_exit_codes_that_no_retry_mends_fail_at_once() -> None:
    """75 and what nobody foresaw are worth another try, and a disruption is nobody's fault."""
    assert [int(code) for code in manifests.NEVER_RETRIED] == [64, 65, 66, 77, 79]
    _, driver = goldens.manifests(goldens.job(goldens.document("smallest")))
    ignored, failed = driver["spec"]["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert failed["onExitCodes"]["values"] == [int(code) for code in manifests.NEVER_RETRIED]
    assert ExitCode.UNAVAILABLE not in manifests.NEVER_RETRIED


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, ("1", "4Gi"), ("1", "4Gi")),
        ({"requests": {"cpu": "3"}}, ("3", "4Gi"), ("3", "4Gi")),
        ({"limits": {"memory": "8Gi"}}, ("1", "8Gi"), ("1", "8Gi")),
        ({"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "2"}}, ("1", "2Gi"), ("2", "2Gi")),
    ],
)
def test_resources(given: Manifest, requests: tuple[str, str], limits: tuple[str, str]) -> None:
    made = manifests.resources(given, "1", "4Gi")
    assert made["requests"] == dict(zip(("cpu", "memory"), requests, strict=True))
    assert made["limits"] == dict(zip(("cpu", "memory"), limits, strict=True))


@pytest.mark.parametrize(
    ("requested", "followed"),
    [("0", "limits.cpu"), ("0m", "limits.cpu"), ("10m", "requests.cpu"), ("2", "requests.cpu")],
)
@pytest.mark.parametrize("engine", ["local", "spark"])
def test_threads_follow_the_limit_where_no_core_is_requested(engine: str, requested: str, followed: str) -> None:
    """OpenMP does not take 0."""
    resources = {"requests": {"cpu": requested}, "limits": {"cpu": "2"}}
    spec = {"containers": [{"name": "almanac", "resources": resources}]}
    given = {"podTemplate": {"spec": spec}} if engine == "local" else {}
    conf = {"spark.kubernetes.driver.request.cores": requested}
    of = document(engine=engine, spark={"conf": conf, "driver": {"cores": 2}}, **given)
    of["metadata"] |= {"uid": goldens.UID}
    (main,) = goldens.manifests(goldens.job(of))[-1]["spec"]["template"]["spec"]["containers"]
    assert main["resources"]["requests"]["cpu"] == requested
    (threads,) = [one for one in main["env"] if one["name"] == "OMP_NUM_THREADS"]
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": followed}}


def test_other_resources_are_left_alone() -> None:
    made = manifests.resources({"limits": {"nvidia.com/gpu": 1}}, "1", "4Gi")
    assert made["limits"]["nvidia.com/gpu"] == 1


def test_a_service_account_is_the_jobs_or_the_operators() -> None:
    job = goldens.job(goldens.document("smallest"))
    (spec,) = pod_specs(goldens.manifests(job, Settings(service_account="drivers")))
    assert spec["serviceAccountName"] == "drivers"
    (spec,) = pod_specs(goldens.manifests(goldens.job(goldens.document("everything")), Settings(service_account="x")))
    assert spec["serviceAccountName"] == "ledger"


def test_what_decides_and_what_builds_know_the_same_engines() -> None:
    assert set(ENGINES) == set(COMPANIONS) == set(STARTABLE) == {Engine.LOCAL, Engine.SPARK, Engine.DASK}
    for engine, kinds in COMPANIONS.items():
        job = goldens.job(document(engine=str(engine)) | {"metadata": {"name": "ledger", "uid": goldens.UID}})
        assert {*kinds, "Job"} == {one["kind"] for one in goldens.manifests(job)}


@pytest.fixture
def on_spark() -> list[Manifest]:
    return goldens.manifests(goldens.job(goldens.document("spark")))


def test_a_driver_on_spark_may_do_with_pods_what_spark_does_and_nothing_else(on_spark: list[Manifest]) -> None:
    role, binding = (next(one for one in on_spark if one["kind"] == kind) for kind in ("Role", "RoleBinding"))
    assert [(rule["apiGroups"], rule["resources"]) for rule in role["rules"]] == [([""], ["pods"])]
    account = on_spark[-1]["spec"]["template"]["spec"]["serviceAccountName"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "finance"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert "serviceAccountName" not in executors(on_spark)[0]["spec"]


def test_a_service_account_of_the_job_is_that_of_driver_and_executors() -> None:
    job = goldens.job(document(engine="spark", serviceAccountName="ledger"))
    made = goldens.manifests(job)
    assert "ServiceAccount" not in {one["kind"] for one in made}
    assert {spec["serviceAccountName"] for spec in pod_specs(made)} == {"ledger"}
    (binding,) = (one for one in made if one["kind"] == "RoleBinding")
    assert binding["subjects"][0]["name"] == "ledger"


def test_a_pod_template_shapes_driver_and_executors_alike(on_spark: list[Manifest]) -> None:
    driver, executor = pod_specs(on_spark)
    for field in ("nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets", "securityContext"):
        assert driver[field] == executor[field]
    for spec in (driver, executor):
        (main,) = spec["containers"]
        assert {"name": "certificates", "mountPath": "/certificates"} in main["volumeMounts"]
        assert {"name": "SSL_CERT_FILE", "value": "/certificates/ca.pem"} in main["env"]
        assert main["envFrom"] == [{"secretRef": {"name": "ledger-s3"}}]
    assert executors(on_spark)[0]["metadata"]["labels"]["team"] == "finance"


def test_the_size_of_pods_on_spark_is_what_the_job_says_of_spark(on_spark: list[Manifest]) -> None:
    """resources of spec.podTemplate are for a run in one pod: of them, what is no CPU and no memory stays."""
    sizes = [one["containers"][0]["resources"] for one in pod_specs(on_spark)]
    assert [one["limits"] for one in sizes] == [
        {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "20Gi"},
        {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "20Gi"},
    ]
    assert [one["requests"] for one in sizes] == [{"cpu": "2", "memory": "8Gi"}, {"cpu": "3500m", "memory": "16Gi"}]
    conf = settings_of(on_spark)
    assert conf["spark.driver.memory"] == "4096m"
    assert (conf["spark.executor.memory"], conf["spark.executor.memoryOverhead"]) == ("6553m", "9831m")


@pytest.mark.parametrize(
    ("executors", "expected"),
    [
        ({}, {"spark.executor.instances": "4"}),
        ({"instances": 7}, {"spark.executor.instances": "7"}),
        ({"memory": "1Gi"}, {"spark.executor.memory": "512m", "spark.executor.memoryOverhead": "512m"}),
        ({"memory": "4Gi", "memoryOverhead": "1Gi"}, {"spark.executor.memory": "3072m"}),
        (
            {"maximum": 9},
            {
                "spark.dynamicAllocation.enabled": "true",
                "spark.dynamicAllocation.minExecutors": "1",
                "spark.dynamicAllocation.maxExecutors": "9",
            },
        ),
        ({"minimum": 0, "maximum": 9}, {"spark.dynamicAllocation.initialExecutors": "0"}),
    ],
)
def test_how_many_executors_and_how_big(executors: Manifest, expected: dict[str, str]) -> None:
    conf = settings_of(goldens.manifests(goldens.job(document(engine="spark", spark={"executors": executors}))))
    assert conf.items() >= expected.items()
    assert ("spark.executor.instances" in conf) is ("maximum" not in executors)


def test_settings_of_a_job_come_before_defaults_and_after_what_the_operator_sets(on_spark: list[Manifest]) -> None:
    conf = settings_of(on_spark)
    assert conf["spark.decommission.enabled"] == "false"
    assert conf["spark.sql.shuffle.partitions"] == "2000"
    assert conf["spark.driver.host"] == f"{on_spark[-1]['metadata']['name']}.finance.svc"
    assert conf["spark.executor.extraJavaOptions"] == r'-Dpath=C:\\logs -Dgreeting="grüß dich"'


def test_properties_say_what_was_meant() -> None:
    """As java.util.Properties reads them."""
    assert spark.properties({"b:c d": " x\n\\y=#", "a": ""}) == "a=\nb\\:c\\ d=\\ x\\n\\\\y=#\n"


def test_the_service_finds_the_driver_and_no_other_pod(on_spark: list[Manifest]) -> None:
    (service,) = (one for one in on_spark if one["kind"] == "Service")
    selector = service["spec"]["selector"].items()
    assert on_spark[-1]["spec"]["template"]["metadata"]["labels"].items() >= selector
    assert not executors(on_spark)[0]["metadata"]["labels"].items() >= selector
    ports = {one["targetPort"] for one in service["spec"]["ports"]}
    (driver,) = on_spark[-1]["spec"]["template"]["spec"]["containers"]
    assert ports == {one["name"] for one in driver["ports"]} == {"rpc", "blocks", "ui", "metrics"}
    assert service["metadata"]["name"][0].isalpha()


@pytest.fixture
def on_dask() -> list[Manifest]:
    return goldens.manifests(goldens.job(goldens.document("dask")))


def main_of(template: Manifest) -> Manifest:
    """The container that computes."""
    (only,) = [one for one in template["spec"]["containers"] if one["name"] == names.CONTAINER]
    return dict(only)


def test_a_dask_cluster_is_what_its_definition_takes(on_dask: list[Manifest]) -> None:
    """Whoever writes more is refused: schemas of PodSpecs in it are those of Kubernetes 1.21."""
    folder = Path(find_spec("dask_kubernetes").submodule_search_locations[0])  # type: ignore[union-attr,index]
    (file,) = folder.rglob("crds/daskcluster.yaml")
    (version,) = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["versions"]
    (cluster,) = [one for one in on_dask if one["kind"] == "DaskCluster"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert strangers(cluster["spec"], schema, "spec") == []
    assert "strange" in strangers(cluster["spec"] | {"strange": 1}, schema, "")[0]


def strangers(value: Any, schema: Manifest, path: str) -> list[str]:
    """Paths of what a schema does not know, or lacks."""
    if isinstance(value, list):
        return [one for item in value for one in strangers(item, schema.get("items") or {}, path)]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    lacking = [f"{path}.{name} is absent" for name in schema.get("required", ()) if name not in value]
    unknown = [f"{path}.{name}" for name in value if name not in known]
    inside = [one for name in value if name in known for one in strangers(value[name], known[name], f"{path}.{name}")]
    return [*lacking, *unknown, *inside]


@pytest.mark.parametrize("kind", [ForecastJob, AnomalyJob])
def test_a_worker_imports_what_its_driver_carries_out_as_it_starts(kind: type[Job]) -> None:
    """The module that says so is the jobs': the operator knows it by name only."""
    module = import_module(dask.PRELOADED[kind.__name__])
    assert module.carry_out.__annotations__["job"] == kind.__name__


def test_the_size_of_a_dask_cluster_is_what_the_job_says_of_dask(on_dask: list[Manifest]) -> None:
    """resources of spec.podTemplate are the driver's; less CPU than a pod may use is requested of all."""
    (cluster,) = [one for one in on_dask if one["kind"] == "DaskCluster"]
    assert cluster["spec"]["worker"]["replicas"] == 2
    scheduler, worker = (main_of(one)["resources"] for one in parts(on_dask).values())
    driver = main_of(on_dask[-1]["spec"]["template"])["resources"]
    assert worker["limits"] == {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "20Gi"}
    assert worker["requests"] == {"cpu": "3500m", "memory": "16Gi"}
    assert (scheduler["limits"]["memory"], scheduler["requests"]) == ("4Gi", {"cpu": "1", "memory": "4Gi"})
    assert driver["requests"] == {"cpu": "3500m", "memory": "8Gi"}
    args = main_of(parts(on_dask)["worker"])["args"]
    assert args[args.index("--nthreads") + 1] == "4"
    assert args[args.index("--memory-limit") + 1] == str(16 << 30)
    assert "--no-nanny" in args


@pytest.mark.parametrize(
    ("dask", "replicas"),
    [({}, 4), ({"workers": 7}, 7), ({"maximum": 3}, 1), ({"minimum": 2, "maximum": 3}, 2)],
)
def test_how_many_workers_there_are_to_begin_with(dask: Manifest, replicas: int) -> None:
    made = goldens.manifests(goldens.job(document(engine="dask", dask=dask)))
    (cluster,) = [one for one in made if one["kind"] == "DaskCluster"]
    assert cluster["spec"]["worker"]["replicas"] == replicas


def test_driver_and_workers_find_the_scheduler(on_dask: list[Manifest]) -> None:
    """dask-kubernetes names its Service, and leaves an address that is there already."""
    (cluster,) = [one for one in on_dask if one["kind"] == "DaskCluster"]
    address = f"tcp://{cluster['metadata']['name']}-scheduler.finance.svc:8786"
    for template in (on_dask[-1]["spec"]["template"], parts(on_dask)["worker"]):
        assert {"name": "DASK_SCHEDULER_ADDRESS", "value": address} in main_of(template)["env"]
    assert {"name": "ALMANAC_ENGINE", "value": "dask"} in main_of(on_dask[-1]["spec"]["template"])["env"]
    service = cluster["spec"]["scheduler"]["service"]
    ports = {one["name"]: one["containerPort"] for one in main_of(parts(on_dask)["scheduler"])["ports"]}
    assert {one["targetPort"]: one["port"] for one in service["ports"]} == ports
    assert len(f"{cluster['metadata']['name']}-scheduler") <= names.LABEL_LENGTH


def test_only_who_reads_storage_has_its_secret(on_dask: list[Manifest]) -> None:
    secret = {"secretRef": {"name": "ledger-s3"}}
    templates = {"driver": on_dask[-1]["spec"]["template"], **parts(on_dask)}
    assert {name for name, one in templates.items() if secret in main_of(one).get("envFrom", [])} == {
        "driver",
        "worker",
    }


def test_pods_of_a_run_on_dask_are_reached_by_each_other_alone(on_dask: list[Manifest]) -> None:
    """Dask asks nobody who he is: its scheduler and workers run whatever they are sent."""
    (policy,) = [one["spec"] for one in on_dask if one["kind"] == "NetworkPolicy"]
    chosen = policy["podSelector"]["matchLabels"].items()
    for template in (on_dask[-1]["spec"]["template"], *parts(on_dask).values()):
        assert template["metadata"]["labels"].items() >= chosen
    among, told = policy["ingress"]
    assert among == {"from": [{"podSelector": policy["podSelector"]}]}
    assert {one["port"] for one in told["ports"]} == {8787, 9400}
    for template in parts(on_dask).values():
        comm = {one["containerPort"] for one in main_of(template)["ports"] if one["name"].endswith("comm")}
        assert not comm & {8787, 9400}


def test_a_container_of_dask_that_ends_is_told_of_by_the_end_of_its_log(on_dask: list[Manifest]) -> None:
    for template in parts(on_dask).values():
        assert main_of(template)["terminationMessagePolicy"] == "FallbackToLogsOnError"
