"""The Helm chart: what it makes of values, and laws that hold whatever they are. And deploy/, which is made from it."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

import charts
import goldens
import programs
from almanac import names, settings
from almanac.crd import RESOURCES
from restricted import is_restricted
from tools import chart, deploy, reference
from tools.chart import CHART, ROOT, Manifest

VERSIONS = ("1.31", "1.35")
"""The oldest version of Kubernetes that the chart takes, and the newest whose schemas there are."""

cases = pytest.mark.parametrize("values", charts.VALUES.values(), ids=charts.VALUES)


def rendered(values: dict[str, Any] | None = None, *, whole: bool = False) -> list[Manifest]:
    """What the chart makes, without the charts that it depends on or, `whole`, with them."""
    made = chart.render(values).items()
    return [one for path, documents in made if whole or not path.startswith("charts/") for one in documents]


def named(made: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = [one for one in made if one["kind"] == kind and name in one["metadata"]["name"]]
    return found


def test_what_the_chart_takes_from_elsewhere_is_fresh() -> None:
    """`make chart` writes it anew: the CustomResourceDefinitions, and the chart of dask-kubernetes."""
    for folder, files in chart.taken().items():
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_the_version_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (version, version)


def test_lint() -> None:
    found = helm_python.lint(CHART, strict=True)
    assert not found["errors"]
    assert not [one for one in found["messages"] if "icon" not in str(one)]


def test_default_values_give_the_golden_file() -> None:
    """`python tests/goldens.py` writes it anew."""
    assert goldens.chart() == goldens.CHART.read_text(encoding="utf-8")


@cases
def test_kubernetes_takes_what_is_made(values: dict[str, Any]) -> None:
    made = rendered(values, whole=True)
    ids = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in made]
    assert len(set(ids)) == len(ids)
    for one in made:
        if one["kind"] not in charts.CUSTOM:
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)


@cases
def test_every_pod_is_restricted_and_bounded(values: dict[str, Any]) -> None:
    found = list(charts.pods(rendered(values, whole=True)))
    assert len(found) >= 2
    for pod in found:
        assert is_restricted(pod["spec"])
        for container in pod["spec"]["containers"]:
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_nothing_calls_a_program_that_images_do_not_have() -> None:
    """Those of `images/python` have no shell; that of Spark starts what it is given by itself."""
    made: list[Any] = [goldens.manifests(goldens.job(goldens.document(name))) for name in goldens.NAMES]
    ours = [one for one in containers([*rendered(), *made]) if "almanac" in one["image"]]
    assert len(ours) > len(goldens.NAMES)
    for one in ours:
        program, *_ = *one.get("command", ()), *one.get("args", ())
        assert program in ("almanac", "dask", "python")
        probes = [about for name, about in one.items() if name.endswith("Probe") or name == "lifecycle"]
        assert "exec" not in str(probes)


def containers(part: Any) -> Iterator[Manifest]:
    """Every container in manifests, wherever it is."""
    if isinstance(part, dict) and isinstance(part.get("image"), str):
        yield part
    for inside in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from containers(inside)


@cases
def test_every_object_is_labelled_and_selected_by_its_labels(values: dict[str, Any]) -> None:
    made = rendered(values)
    for one in made:
        assert one["metadata"]["labels"].keys() >= {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    (pod,) = [one for one in charts.pods(made) if one["metadata"]["labels"].get(names.COMPONENT) == "operator"]
    selectors = [named(made, "Service")["spec"]["selector"]]
    for kind in ("Deployment", "PodDisruptionBudget", "ServiceMonitor"):
        of_kind = [one for one in made if one["kind"] == kind]
        selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind]
    for selector in selectors:
        assert selector.items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"][names.MANAGED_BY] != names.ALMANAC, "the operator would watch it as a driver"


@cases
def test_the_operator_is_set_up_by_names_that_it_knows(values: dict[str, Any]) -> None:
    """Each setting of the operator's is in its environment, and is read there."""
    environment = charts.environment(rendered(values))
    ours = {name for name in environment if name.startswith(settings.PREFIX)}
    assert ours == {f"{settings.PREFIX}{field.name.upper()}" for field in fields(settings.Settings)}
    read = settings.from_environment(environment)
    assert list(read.namespaces) == values.get("watch", {}).get("namespaces", [])
    assert bool(read.lease) is values.get("leaderElection", {}).get("enabled", True)
    leases = [one for one in rendered(values) if one["kind"] == "Role" and one["metadata"]["name"].endswith("-lease")]
    assert all(rule.get("resourceNames", [read.lease]) == [read.lease] for one in leases for rule in one["rules"])


class TestDefinitions:
    def test_they_are_those_of_the_contract(self) -> None:
        made = [one for one in rendered() if one["kind"] == "CustomResourceDefinition"]
        committed = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
        assert [one["spec"] for one in made] == [one["spec"] for one in committed]
        assert {one["spec"]["names"]["plural"] for one in made} == {one.plural for one in RESOURCES.values()}

    def test_they_outlive_the_release(self) -> None:
        for one in rendered():
            kept = one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
            assert kept is (one["kind"] == "CustomResourceDefinition")

    def test_unless_they_should_not(self) -> None:
        made = [one for one in rendered({"crds": {"keep": False}}) if one["kind"] == "CustomResourceDefinition"]
        assert made
        assert not [one for one in made if "annotations" in one["metadata"]]

    def test_the_packed_chart_has_them(self, tmp_path: Path) -> None:
        archive = helm_python.package(CHART, destination=tmp_path)
        with tarfile.open(archive) as packed:
            inside = {name for name in packed.getnames() if "/files/crds/" in name}
        assert inside == {f"almanac/files/crds/{path.name}" for path in (ROOT / "crds").glob("*.yaml")}


class TestRights:
    def test_in_all_namespaces(self) -> None:
        made = rendered()
        assert (
            named(made, "ClusterRoleBinding")["roleRef"]["name"]
            == named(made, "ClusterRole", "operator")["metadata"]["name"]
        )
        assert [one["metadata"]["name"] for one in made if one["kind"] == "Role"] == ["almanac-operator-lease"]

    def test_in_some_namespaces_nothing_is_granted_in_others(self) -> None:
        made = rendered({"watch": {"namespaces": ["finance", "sales"]}, "rbac": {"aggregate": False}})
        roles = {one["metadata"]["namespace"]: one for one in made if one["kind"] == "Role"}
        assert roles.keys() == {"finance", "sales", "almanac"}
        assert roles["almanac"]["metadata"]["name"].endswith("-lease")
        assert (
            roles["finance"]["rules"]
            == roles["sales"]["rules"]
            == named(rendered(), "ClusterRole", "operator")["rules"]
        )
        assert not [one for one in made if one["kind"].startswith("ClusterRole")]
        for one in made:
            if one["kind"] == "RoleBinding":
                assert one["subjects"][0]["namespace"] == "almanac"
                assert one["roleRef"]["name"] == one["metadata"]["name"]

    def test_without_spark_it_makes_no_roles(self) -> None:
        rules = named(rendered({"spark": {"enabled": False}}), "ClusterRole", "operator")["rules"]
        granted = {resource for rule in rules for resource in rule["resources"]}
        assert not granted & {"roles", "rolebindings", "services", "serviceaccounts", "secrets"}

    def test_nothing_is_granted_by_a_star_and_no_secret_is_read(self) -> None:
        for one in rendered():
            for rule in one.get("rules", ()):
                assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
                assert "secrets" not in rule["resources"]

    def test_users(self) -> None:
        """Who may view a namespace may see jobs, who may edit it may write them, though not their status."""
        made = rendered()
        plurals = sorted(one.plural for one in RESOURCES.values())
        for name, verbs in (("almanac-view", {"get"}), ("almanac-edit", {"create", "delete"})):
            (rule,) = named(made, "ClusterRole", name)["rules"]
            assert sorted(rule["resources"]) == plurals
            assert verbs <= set(rule["verbs"])
        assert "create" not in named(made, "ClusterRole", "almanac-view")["rules"][0]["verbs"]


class TestImages:
    @pytest.mark.parametrize(
        ("image", "expected"),
        [
            ({}, "almanac:0.1.0"),
            ({"tag": "1.2.3"}, "almanac:1.2.3"),
            ({"repository": "r.example:5000/a/b"}, "r.example:5000/a/b:0.1.0"),
            ({"digest": charts.DIGEST}, f"almanac@{charts.DIGEST}"),
            ({"digest": charts.DIGEST, "tag": "1.2.3"}, f"almanac:1.2.3@{charts.DIGEST}"),
        ],
    )
    def test_by_tag_and_by_digest(self, image: dict[str, str], expected: str) -> None:
        made = rendered({"image": image})
        images = {container["image"] for pod in charts.pods(made) for container in pod["spec"]["containers"]}
        assert images == {expected}
        assert charts.environment(made)["ALMANAC_IMAGE"] == expected


class TestNetworkPolicies:
    def test_each_selects_pods_of_ours_by_labels_that_they_have(self) -> None:
        """The labels, and ports, are those of what the operator makes."""
        policies = [one for one in rendered(charts.VALUES["networks"]) if one["kind"] == "NetworkPolicy"]
        assert {one["metadata"]["namespace"] for one in policies} == {"almanac", "finance", "sales"}
        run = {one: list(charts.pods(goldens.manifests(goldens.job(goldens.document(one))))) for one in goldens.NAMES}
        (driver,) = run["smallest"]
        (spark,) = run["spark"]

        def chosen(by: Manifest) -> list[str]:
            return [
                one["metadata"]["name"]
                for one in policies
                if one["metadata"]["namespace"] == "finance"
                and one["spec"]["podSelector"]["matchLabels"].items() <= by["metadata"]["labels"].items()
            ]

        assert chosen(driver) == ["almanac-drivers"]
        assert chosen(spark) == ["almanac-drivers", "almanac-spark-drivers"]
        for pod in charts.pods(goldens.manifests(goldens.job(goldens.document("dask")))):
            assert "almanac-dask" in chosen(pod)
        ports = {port["containerPort"] for port in spark["spec"]["containers"][0]["ports"]}
        opened = {
            port["port"]
            for one in policies
            if one["metadata"]["name"] in chosen(spark) and one["metadata"]["namespace"] == "finance"
            for rule in one["spec"]["ingress"]
            for port in rule["ports"]
        }
        assert opened == ports - {4040}, "Spark's pages are for `kubectl port-forward`, which no policy stops"

    def test_data_may_be_anywhere_but_where_credentials_of_nodes_are(self) -> None:
        policies = [one for one in rendered(charts.VALUES["networks"]) if one["kind"] == "NetworkPolicy"]
        blocks = [
            to["ipBlock"]
            for one in policies
            for rule in one["spec"]["egress"]
            for to in rule.get("to", ())
            if "ipBlock" in to
        ]
        assert blocks
        for block in blocks:
            assert block["except"][0] == ("169.254.0.0/16" if block["cidr"] == "0.0.0.0/0" else "fd00:ec2::/32")


class TestValues:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"replica": 3}, "additional properties 'replica' not allowed"),
            ({"watch": {"namespace": "finance"}}, "at '/watch': additional properties 'namespace' not allowed"),
            ({"watch": {"namespaces": ["Finance"]}}, "at '/watch/namespaces/0'"),
            ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
            ({"image": {"digest": "latest"}}, "at '/image/digest'"),
            ({"image": {"repository": ""}}, "at '/image/repository'"),
            ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy'"),
            ({"jobs": {"memory": "4 gigabytes"}}, "at '/jobs/memory'"),
            ({"jobs": {"cpu": 1}}, "at '/jobs/cpu': got number, want string"),
            ({"log": {"level": "loud"}}, "at '/log/level'"),
            ({"extraEnv": [{"name": "ALMANAC_IMAGE", "value": "x"}]}, "at '/extraEnv/0/name'"),
            ({"metrics": {"port": 80}}, "at '/metrics/port': minimum: got 80, want 1,024"),
            ({"networkPolicy": {"blocked": ["169.254.169.254"]}}, "at '/networkPolicy/blocked/0'"),
        ],
    )
    def test_a_wrong_one_is_named(self, values: dict[str, Any], said: str) -> None:
        with pytest.raises(helm_python.HelmValuesError) as error:
            chart.render(values)
        assert said in str(error.value)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"leaderElection": {"enabled": False}}, "leaderElection.enabled: is false with 2 replicas"),
            ({"serviceAccount": {"create": False}}, "serviceAccount.name: must name an account"),
            ({"jobs": {"serviceAccount": {"create": True, "name": "x"}}}, "jobs.serviceAccount.create: is for"),
            (
                {"watch": {"namespaces": ["a"]}, "jobs": {"serviceAccount": {"create": True}}},
                "jobs.serviceAccount.name: must be given",
            ),
        ],
    )
    def test_those_that_do_not_go_together_say_so(self, values: dict[str, Any], said: str) -> None:
        with pytest.raises(helm_python.HelmRenderError) as error:
            chart.render(values)
        assert said in str(error.value)

    def test_the_schema_knows_each_and_no_other(self) -> None:
        schema = json.loads((CHART / "values.schema.json").read_text())
        jsonschema.Draft7Validator.check_schema(schema)

        def known(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
            properties = schema.get("properties")
            if properties is None:
                return
            missing = set(properties) ^ set(values) - {"global"}
            assert not missing - {"global", "claims"}, f"{path}: {missing}"
            assert schema["additionalProperties"] is False, path
            for name, one in properties.items():
                target = schema_of(one)
                if isinstance(values.get(name), dict):
                    known(target, values[name], f"{path}.{name}")

        def schema_of(one: dict[str, Any]) -> dict[str, Any]:
            return schema["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one

        known(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "")


@cases
def test_notes_say_the_next_command(values: dict[str, Any]) -> None:
    """The job that they have one apply is a job."""
    said = chart.notes(values)
    name = "forecasting" if "fullnameOverride" in values else "almanac"
    assert f"kubectl rollout status -n almanac deployment/{name}-operator" in said
    found = re.search(r"<<'EOF'\n(.*?)\n  EOF", said, re.DOTALL)
    assert found is not None
    document = yaml.safe_load(found[1])
    document["metadata"]["uid"] = goldens.UID
    assert goldens.job(document).spec.horizon == 14


def test_its_reference_is_fresh() -> None:
    """`make chart` writes it anew."""
    assert (ROOT / "docs/reference/chart.md").read_text(encoding="utf-8") == reference.pages()["chart.md"]


class TestDeploy:
    """deploy/, for those without Helm."""

    def test_it_is_what_the_chart_makes(self) -> None:
        """`make chart` writes it anew."""
        for path, text in deploy.files().items():
            assert (ROOT / "deploy" / path).read_text(encoding="utf-8") == text

    @pytest.mark.parametrize("overlay", ["cluster", "namespaced", "tenant"])
    def test_kustomize_builds_it(self, overlay: str) -> None:
        kubectl = programs.found("kubectl")
        built = subprocess.run(
            [kubectl, "kustomize", ROOT / "deploy" / overlay], capture_output=True, text=True, check=True
        )
        made = list(yaml.safe_load_all(built.stdout))
        for one in made:
            kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        kinds = {one["kind"] for one in made}
        assert ("ClusterRoleBinding" in kinds) is (overlay == "cluster")
        assert ("Deployment" in kinds) is (overlay != "tenant")
        if overlay == "namespaced":
            (container,) = named(made, "Deployment")["spec"]["template"]["spec"]["containers"]
            (watched,) = [one for one in container["env"] if one["name"] == "ALMANAC_NAMESPACES"]
            assert watched["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
            assert "value" not in watched
