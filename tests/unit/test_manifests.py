"""What the operator creates: the same as the golden files, and true to laws that hold for every manifest."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import goldens
from almanac import manifests, names
from almanac.api import Engine, ExitCode, JobError
from almanac.engines import ENGINES
from almanac.lifecycle import ENGINES as STARTABLE
from almanac.resource import read_job
from almanac.settings import Settings
from manifests import document

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


def is_restricted(spec: Manifest) -> bool:
    """The restricted Pod Security Standard, as its page has it."""
    context = spec["securityContext"]
    shares = any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
    mounts = {kind for volume in spec["volumes"] for kind in volume} - {"name", "secret"} <= allowed
    return not shares and mounts and all(is_restricted_container(one, context) for one in spec["containers"])


def is_restricted_container(container: Manifest, pod: Manifest) -> bool:
    own = container["securityContext"]
    context = pod | own
    return (
        context["runAsNonRoot"] is True
        and context.get("runAsUser") != 0
        and context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        and own["allowPrivilegeEscalation"] is False
        and not own.get("privileged")
        and "ALL" in own["capabilities"]["drop"]
        and set(own["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}
        and not any(port.get("hostPort") for port in container.get("ports", []))
    )


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
        for version in versions:
            kubernetes_validate.validate(one, version, strict=True)
    assert made[-1]["kind"] == "Job"
    for spec in pod_specs(made):
        assert is_restricted(spec)
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is False
        assert spec["restartPolicy"] == "Never"
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


@given(specs)
@settings(max_examples=150)
def test_a_pod_template_obeys_the_laws_or_is_refused(spec: Manifest) -> None:
    of = document(podTemplate={"spec": spec})
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
    made = manifests.resources(given, Settings())
    assert made["requests"] == dict(zip(("cpu", "memory"), requests, strict=True))
    assert made["limits"] == dict(zip(("cpu", "memory"), limits, strict=True))


def test_other_resources_are_left_alone() -> None:
    made = manifests.resources({"limits": {"nvidia.com/gpu": 1}}, Settings())
    assert made["limits"]["nvidia.com/gpu"] == 1


def test_a_service_account_is_the_jobs_or_the_operators() -> None:
    job = goldens.job(goldens.document("smallest"))
    (spec,) = pod_specs(goldens.manifests(job, Settings(service_account="drivers")))
    assert spec["serviceAccountName"] == "drivers"
    (spec,) = pod_specs(goldens.manifests(goldens.job(goldens.document("everything")), Settings(service_account="x")))
    assert spec["serviceAccountName"] == "ledger"


def test_what_decides_and_what_builds_know_the_same_engines() -> None:
    assert set(ENGINES) == set(STARTABLE) == {Engine.LOCAL}
