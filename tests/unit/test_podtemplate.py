"""spec.podTemplate: merged as Kubernetes merges, and refused, with the field's name, where it goes too far."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.api import JobError, PodTemplate
from almanac.podtemplate import merge, problems
from almanac.resource import read_job
from manifests import document

Raw = dict[str, Any]

BASE: Raw = {
    "containers": [
        {
            "name": "almanac",
            "image": "ours",
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
            "envFrom": [{"secretRef": {"name": "storage"}}],
            "volumeMounts": [{"name": "tmp", "mountPath": "/scratch"}],
            "securityContext": {"capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "securityContext": {"runAsUser": 10001},
}


@pytest.mark.parametrize(
    ("patch", "path", "expected"),
    [
        pytest.param({"nodeSelector": {"a": "b"}}, "nodeSelector", {"a": "b"}, id="what is new is taken"),
        pytest.param(
            {"securityContext": {"fsGroup": 1}}, "securityContext", {"runAsUser": 10001, "fsGroup": 1}, id="maps"
        ),
        pytest.param({"securityContext": None}, "securityContext", {"runAsUser": 10001}, id="null leaves things"),
        pytest.param(
            {"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "x", "emptyDir": {}}]},
            "volumes",
            [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "x", "emptyDir": {}}],
            id="a volume is one thing",
        ),
        pytest.param(
            {"tolerations": [{"key": "a"}, {"key": "b"}]}, "tolerations", [{"key": "a"}, {"key": "b"}], id="other lists"
        ),
    ],
)
def test_pods(patch: Raw, path: str, expected: Any) -> None:
    assert merge(BASE, patch)[path] == expected


@pytest.mark.parametrize(
    ("patch", "path", "expected"),
    [
        ({"image": "theirs"}, "image", "theirs"),
        (
            {"env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
            "env",
            [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
        ),
        (
            {"envFrom": [{"configMapRef": {"name": "more"}}]},
            "envFrom",
            [{"secretRef": {"name": "storage"}}, {"configMapRef": {"name": "more"}}],
        ),
        (
            {"volumeMounts": [{"name": "big", "mountPath": "/scratch"}, {"name": "big", "mountPath": "/data"}]},
            "volumeMounts",
            [{"name": "big", "mountPath": "/scratch"}, {"name": "big", "mountPath": "/data"}],
        ),
        (
            {"securityContext": {"capabilities": {"drop": ["ALL", "X"]}}},
            "securityContext",
            {"capabilities": {"drop": ["ALL", "X"]}},
        ),
    ],
)
def test_containers(patch: Raw, path: str, expected: Any) -> None:
    merged = merge(BASE, {"containers": [{"name": "almanac", **patch}]})
    assert merged["containers"][0][path] == expected
    assert len(merged["containers"]) == 1


def test_containers_of_other_names_are_added() -> None:
    merged = merge(BASE, {"containers": [{"name": "audit", "image": "x"}]})
    assert [one["name"] for one in merged["containers"]] == ["almanac", "audit"]


patches = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["name", "env", "spec", "x"]), inside)
    ),
    max_leaves=15,
)


@given(
    st.dictionaries(st.sampled_from(["containers", "volumes", "securityContext", "metadata", "x", "$patch"]), patches)
)
def test_whatever_a_template_holds_it_is_merged_or_refused(spec: Raw) -> None:
    template = PodTemplate(spec=spec)
    before, base = deepcopy(spec), deepcopy(BASE)
    if not problems(template):
        merged = merge(BASE, spec)
        assert merge(merged, {}) == merged
    assert (spec, base) == (before, BASE)


MAIN = {"name": "almanac"}


def container(**fields: Any) -> Raw:
    return {"containers": [MAIN | fields]}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"restartPolicy": "Always"}, "restartPolicy"),
        ({"serviceAccountName": "admin"}, "serviceAccountName"),
        ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
        ({"enableServiceLinks": True}, "enableServiceLinks"),
        ({"activeDeadlineSeconds": 5}, "activeDeadlineSeconds"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "securityContext.sysctls"),
        ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "securityContext.seLinuxOptions"),
        ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "securityContext.windowsOptions"),
        ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, "securityContext.appArmorProfile"),
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volumes[0].hostPath"),
        ({"volumes": [{"name": "almanac-job", "emptyDir": {}}]}, "volumes[0].name"),
        ({"volumes": [{"emptyDir": {}}]}, "volumes[0]"),
        ({"volumes": {"name": "x"}}, "volumes"),
        ({"containers": ["almanac"]}, "containers[0]"),
        ({"containers": [MAIN, MAIN]}, "containers[1].name"),
        ({"containers": [{"name": "driver"}]}, "containers[0]"),
        ({"initContainers": [{"name": "fetch"}]}, "initContainers[0]"),
        ({"nodeSelector": "batch"}, "nodeSelector"),
        ({"$patch": "replace"}, "$patch"),
        (container(command=["sh"]), "containers[0].command"),
        (container(terminationMessagePath="/x"), "containers[0].terminationMessagePath"),
        (container(env=[{"value": "x"}]), "containers[0].env[0]"),
        (container(resources=3), "containers[0].resources"),
        (container(resources={"limits": ["cpu"]}), "containers[0].resources.limits"),
        (
            container(volumeMounts=[{"name": "x", "mountPath": "/etc/almanac/"}]),
            "containers[0].volumeMounts[0].mountPath",
        ),
        (container(ports=[{"containerPort": 80, "hostPort": 80}]), "containers[0].ports[0].hostPort"),
        (container(securityContext={"privileged": True}), "containers[0].securityContext.privileged"),
        (container(securityContext={"capabilities": {"drop": []}}), "containers[0].securityContext.capabilities"),
        (container(securityContext={"procMount": "Unmasked"}), "containers[0].securityContext.procMount"),
        (container(livenessProbe={"httpGet": {"host": "10.0.0.1"}}), "containers[0].livenessProbe.httpGet.host"),
        (
            container(lifecycle={"preStop": {"tcpSocket": {"host": "x"}}}),
            "containers[0].lifecycle.preStop.tcpSocket.host",
        ),
    ],
)
def test_what_goes_too_far_is_refused_by_name(spec: Raw, path: str) -> None:
    (problem,) = problems(PodTemplate(spec=spec))
    assert problem.path == f"spec.podTemplate.spec.{path}"


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"name": "x"}, "name"),
        ({"labels": ["x"]}, "labels"),
        ({"labels": {"team": 1}}, "labels.team"),
        ({"labels": {"almanac.dev/run": "x"}}, "labels.almanac.dev/run"),
        ({"annotations": {"app.kubernetes.io/managed-by": "x"}}, "annotations.app.kubernetes.io/managed-by"),
    ],
)
def test_metadata(metadata: Raw, path: str) -> None:
    (problem,) = problems(PodTemplate(metadata=metadata))
    assert problem.path == f"spec.podTemplate.metadata.{path}"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"securityContext": {"runAsUser": 185, "seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}},
        {"volumes": [{"name": "c", "csi": {"driver": "x"}}], "hostNetwork": False, "serviceAccountName": None},
        container(securityContext={"readOnlyRootFilesystem": False, "capabilities": {"drop": ["ALL"]}}),
        container(image="mine", imagePullPolicy="Always", env=[{"name": "ALMANAC_DEBUG", "value": "1"}]),
        {"initContainers": [{"name": "fetch", "image": "x", "restartPolicy": "Always"}]},
    ],
)
def test_what_is_usual_is_fine(spec: Raw) -> None:
    assert not problems(PodTemplate(spec=spec))


def test_a_job_tells_all_that_is_wrong_with_its_template() -> None:
    read = read_job(document(podTemplate={"spec": {"hostNetwork": True, "restartPolicy": "Always"}}))
    assert isinstance(read, JobError)
    assert read.message.count("spec.podTemplate.spec.") == 2


def test_what_is_nested_without_end_is_refused() -> None:
    deep: Raw = {}
    for _ in range(5000):
        deep = {"x": deep}
    read = read_job(document(podTemplate={"spec": {"affinity": deep}}))
    assert isinstance(read, JobError)


PVC: Raw = {
    "volumes": [{"name": "lake", "persistentVolumeClaim": {"claimName": "lake"}}],
    "containers": [{"name": "almanac", "volumeMounts": [{"name": "lake", "mountPath": "/lake/"}]}],
}


@pytest.mark.parametrize("uri", ["out/cdnow", "/tmp/out", "/lakes", "/lake/../etc", "file:///data/out"])  # noqa: S108
def test_results_do_not_go_with_the_pod(uri: str) -> None:
    refused = read_job(document(output__uri=uri, podTemplate={"spec": PVC}))
    assert isinstance(refused, JobError)
    assert refused.message == (
        "spec.output.uri: is a folder of the pod and goes with it: write to s3:// or gs://, or below a mountPath of "
        f'almanac in spec.podTemplate (got "{uri}")'
    )


@pytest.mark.parametrize("uri", ["s3://lake/out", "gs://lake/out", "/lake", "/lake/out", "file:///lake/out"])
def test_results_that_are_kept(uri: str) -> None:
    assert not isinstance(read_job(document(output__uri=uri, podTemplate={"spec": PVC})), JobError)
