"""Manifests as people, programs and attackers may send them: valid ones, and ones with something odd, wrong or hostile.

They follow from a seed. Fields are those of the CustomResourceDefinition, so that a new one is tried without a word
here. Documents hold JSON's types only, but for `Deep`; `wire` makes them the text that an API is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

from almanac import crd
from kube.cluster import SCHEDULER
from manifests import REFUSED, TAKEN, document

Raw = dict[str, Any]
Path = tuple[str, ...]

LARGEST = 1_572_864
"""Bytes that an API server's store takes at most."""

NUMBERS: list[Any] = [
    *(0, -0.0, 1, -1, 2, 7.0, 1.5, 1e-7, 1e308, -1e308, 5e-324, 0.1 + 0.2, 100, 99.999999999, 366, 10_000, 10_001),
    *(2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *(float("nan"), float("inf"), -float("inf")),
]
TEXTS: list[str] = [
    *("", " ", "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "line\nline\r\nline", "\ud800", "\udfff\ud800", "\ufeffbom"),
    *(
        "\u202egnp.exe",
        "\u2066isolate\u2069",
        "a\u0301\u0327" * 20,
        "\u200b\u200d",
        "é",
        "日本語",
        "👩‍👩‍👧‍👦",
        "\U0010ffff",
    ),
    *("true", "null", "1", "NaN", "0x10", "1e3", "{}", "[]", "%s%n", "{0.__class__}", "$(HOME)", "${jndi:ldap://x}"),
    *("$(touch /tmp/x)", "'; DROP TABLE jobs; --", "<script>alert(1)</script>", "../../../../etc/passwd", "-", "."),
    *("a" * 64, "a" * 254, "x" * 5_000, "\u0661\u0662", "K", "ﬀ", "İ", "::ffff:0:0", "almanac.dev/run", "\\", '"'),
]
URIS = [
    *("s3://bucket/../../other", "s3://bucket/%2e%2e/x", "s3://169.254.169.254/latest/meta-data", "file:///"),
    *("file:///proc/self/environ", "file:///etc/almanac/../shadow", "gs://user:pass@bucket/x", "s3://", "s3:///x"),
    *("http://169.254.169.254/latest/meta-data/", "https://x", "S3://BUCKET/X", "s3://b\u202e/x", "s3://[::1/x"),
    *("s3://b/\x00", "s3://b/a b", "//x/y", "..", "/", "~", "~root/x", "s3:x", "javascript:alert(1)", "s3a://b/x"),
    *("s3://b?x=y", "s3://b#f", "abfs://c@a.dfs/x", "s3://" + "b" * 2_000, "s3://ledger/raw/.", "./s3://x"),
]
ENDPOINTS = [
    *("http://169.254.169.254/", "http://[::1", "http://x:99999", "http://x:y", "http://u:p@x", "https://x/?q#f"),
    *("ftp://x", "http://", "https://\u202e.example", "http://localhost:6443", "HTTP://X", "http://[::1]:9000", "//x"),
]
CRONS = [
    *("* * * * *", "*/0 * * * *", "0 0 31 2 *", "0 0 29 2 *", "60 * * * *", "5-1 * * * *", "@reboot", "@every 1s"),
    *("@daily", "@DAILY", "TZ=UTC * * * * *", "CRON_TZ=UTC * * * * *", "0 0 * * 7", "0 0 ? * ?", "0 0 L * *"),
    *("0 0 1W * *", "0 0 * * 1#2", "H H * * *", "* * * * * *", "0  0 *  * *", " 0 0 * * *", "0 0 * * mon-sun", ",,,"),
    *("\u0661 * * * *", "1/2/3 * * * *", "-1 * * * *", "0 0 * jan,FEB MON", "1," * 60 + "1 * * * *", "0\t0 * * *"),
]
ZONES = [
    *(
        "UTC",
        "Europe/Berlin",
        "europe/berlin",
        "Europe",
        "../../etc/passwd",
        "/etc/localtime",
        "Mars/Phobos",
        "posixrules",
    ),
    *("localtime", "Factory", "EST5EDT", "UTC+25", "UTC\x00", "US/Pacific-New", "Antarctica/Troll", "Asia/Kathmandu"),
]
MAIN = {"name": "almanac"}
POD_SPECS: list[Any] = [
    *({"hostNetwork": True}, {"hostPID": True}, {"hostIPC": "yes"}, {"hostUsers": False}, {"nodeName": "node1"}),
    {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
    {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]},
    {"volumes": [{"name": "almanac-job", "secret": {"secretName": "s"}}]},
    {"volumes": [{"name": "x"}]},
    {"volumes": [{"name": "x", "emptyDir": {}, "secret": {"secretName": "s"}}]},
    {"volumes": [{"name": "BAD NAME", "emptyDir": {"sizeLimit": "lots"}}]},
    {"volumes": {"name": "x"}},
    {"containers": [MAIN, MAIN]},
    {"containers": [MAIN | {"securityContext": {"privileged": True}}]},
    {"containers": [MAIN | {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
    {"containers": [MAIN | {"securityContext": [1]}]},
    {"containers": [MAIN | {"command": ["sh", "-c", "curl 169.254.169.254"]}]},
    {"containers": [MAIN | {"image": "\x00"}]},
    {"containers": [MAIN | {"resources": {"limits": {"cpu": "-1", "memory": "1Zi"}}}]},
    {"containers": [MAIN | {"resources": {"limits": {"cpu": 2, "memory": 1e9}}}]},
    {"containers": [MAIN | {"resources": {"requests": {"cpu": "8"}, "limits": {"cpu": "1"}}}]},
    {"containers": [MAIN | {"resources": {"claims": [{"name": "x"}]}}]},
    {"containers": [MAIN | {"env": [{"name": "A", "value": 1}]}]},
    {"containers": [MAIN | {"env": [{"name": "A=B", "value": "\x00"}]}]},
    {"containers": [MAIN | {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}]},
    {"containers": [MAIN | {"env": [{"name": f"E{one}", "value": "x" * 200} for one in range(2_000)]}]},
    {"containers": [MAIN | {"ports": [{"containerPort": 9400}, {"containerPort": 70_000, "hostPort": 1}]}]},
    {"containers": [MAIN | {"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]}]},
    {"containers": [MAIN | {"volumeMounts": [{"name": "none", "mountPath": "/etc/almanac/x"}]}]},
    {"containers": [MAIN | {"volumeMounts": [{"name": "none", "mountPath": "relative:path"}]}]},
    {"containers": [MAIN | {"lifecycle": {"preStop": {"httpGet": {"host": "169.254.169.254", "port": 80}}}}]},
    {"containers": [MAIN | {"livenessProbe": {"exec": {"command": "not a list"}}}]},
    {"containers": [{"name": f"c{one}", "image": "x"} for one in range(300)]},
    {"containers": [{"name": "x"}]},
    {"containers": [{"name": "x", "image": "y", "unknownField": 1}]},
    {"containers": None},
    {"containers": [None]},
    {"containers": "almanac"},
    {"containers": [{"name": 5}]},
    {"initContainers": [{"name": "almanac", "image": "x"}]},
    {"initContainers": [{"name": "a", "image": "x", "restartPolicy": "Always"}]},
    {"ephemeralContainers": [{"name": "debug", "image": "x", "targetContainerName": "almanac"}]},
    {"tolerations": [{"operator": "Exists"}] * 500},
    {"tolerations": "all"},
    {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}},
    {"affinity": []},
    {"nodeSelector": {"a": 1}},
    {"nodeSelector": {"bad key!": "x" * 100}},
    {"topologySpreadConstraints": [{"topologyKey": "zone"}]},
    {"imagePullSecrets": [{"name": ""}]},
    {"imagePullSecrets": [{}]},
    {"hostAliases": [{"ip": "169.254.169.254", "hostnames": ["storage"]}, {"ip": "169.254.169.254"}]},
    {"schedulingGates": [{"name": "example.com/hold"}]},
    {"terminationGracePeriodSeconds": -5},
    {"priority": 2_000_000_000},
    {"priorityClassName": "system-node-critical"},
    {"runtimeClassName": "none-such"},
    {"dnsPolicy": "None"},
    {"dnsConfig": {"nameservers": ["x"] * 10}},
    {"os": {"name": "windows"}},
    {"overhead": {"cpu": "1"}},
    {"securityContext": {"runAsUser": 0}},
    {"securityContext": {"runAsUser": "root"}},
    {"securityContext": {"runAsUser": -1, "fsGroup": 2**63}},
    {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
    {"securityContext": {"supplementalGroups": ["x"]}},
    {"restartPolicy": "Always", "activeDeadlineSeconds": 1},
    {"serviceAccountName": "admin", "automountServiceAccountToken": True},
    {"$patch": "delete"},
    {"$setElementOrder/containers": [{"name": "x"}]},
    {"nodeSelectors": {"a": "b"}},
    {"": 1},
    {"\x00": {"\u202e": []}},
]
POD_METADATA: list[Any] = [
    *(
        {"name": "x"},
        {"labels": []},
        {"labels": {"a": None}},
        {"labels": {"bad key!": "x"}},
        {"labels": {"a": "x" * 64}},
    ),
    *({"annotations": {"a": "x" * 300_000}}, {"labels": {f"l{one}": "" for one in range(500)}}, {"finalizers": ["x"]}),
    *({"labels": {"almanac.dev/run": "x"}}, {"annotations": {"": "x"}}, {"ownerReferences": [{}]}, {"namespace": "x"}),
    *({"labels": {"a": "\u202e"}}, {"annotations": {"a": "\x00\ud800"}}, {"labels": {"team": 1}}),
]
STATUSES: list[Any] = [
    *(
        "Succeeded",
        [],
        None,
        {"phase": "Succeeded"},
        {"phase": "Nonsense"},
        {"phase": 3},
        {"observedGeneration": 10**15},
    ),
    {"phase": "Running", "run": {"id": "../../x", "number": 10**15, "driver": "kube-system", "attempts": 0}},
    {"phase": "Failed", "run": {"id": "x", "number": 1, "specHash": "", "endTime": "0001-01-01T00:00:00Z"}},
    {"run": {"id": "x", "driver": "a/../../b", "startTime": "9999-12-31T23:59:59Z"}, "history": [{}]},
    {"history": [{"id": f"r{one}", "phase": "Failed"} for one in range(2_000)]},
    {"observedGeneration": 10**15},
    {"conditions": [{"type": "Ready", "status": "Maybe"}]},
    {"conditions": [{"type": f"T{one}", "status": "True", "message": "x" * 300} for one in range(500)]},
    {"result": {"uri": "\u202e", "scores": {"mase": 1e308, "": -0.0}}},
    {"nextScheduleTime": "9999-12-31T23:59:59Z"},
    {"nextScheduleTime": "0001-01-01T00:00:00Z", "progress": "-1%", "done": 10**15, "total": 0},
]
METADATA: list[Any] = [
    *(
        {"labels": {"a": "b"}},
        {"labels": {"bad key!": "x"}},
        {"labels": {"a": 1}},
        {"annotations": {"a": "x" * 200_000}},
    ),
    *({"annotations": {"a": "x" * 300_000}}, {"annotations": {"\x00": "x"}}, {"uid": "mine"}, {"resourceVersion": "1"}),
    *({"generation": -5}, {"creationTimestamp": "yesterday"}, {"deletionTimestamp": "2020-01-01T00:00:00Z"}),
    *(
        {"managedFields": [{"manager": "x", "operation": "Update"}]},
        {"namespace": "kube-system"},
        {"generateName": "x-"},
    ),
    *(
        {"labels": {f"l{one}": "" for one in range(3_000)}},
        {"selfLink": "x", "unknown": 1},
        {"finalizers": ["Bad One"]},
    ),
]
NAMES: list[Any] = [
    *("a" * 253, "a" * 254, "0", "a.b.c", "a-.b", "a..b", "Ledger", "led_ger", "ledger/x", "..", "-a", "x" * 63 + ".y"),
    *("xn--fiqs8s", "日本", "a\x00", "", None, 5, ["a"], "1.2.3.4", "a" * 45 + "-.", "1" * 60),
]


class Deep(str):
    """Stands for a value that is nested this often: `Deep("maps:500")`."""


def manifests(seed: int, *, deepest: int = 9_900, largest: int = LARGEST) -> Iterator[Any]:
    """Manifests without an end. Each that has a name of its own has one that no other has."""
    number = 0
    while True:
        number += 1
        chance = Random(f"{seed}:{number}")  # noqa: S311 - a game
        made: Any = deepcopy(document(**chance.choice([{}, *TAKEN, *TAKEN, chance.choice(REFUSED)])))
        made["metadata"]["name"] = f"hostile-{number}"
        for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 2, 3))):
            change = chance.choices(list(_CHANGES), list(_CHANGES.values()))[0]
            made = change(made, chance)
        if chance.random() < 0.02:
            made = _put(
                made, chance.choice(_OPEN), Deep(f"{chance.choice(list(_NESTS))}:{chance.randint(50, deepest)}")
            )
        if chance.random() < 0.01:
            made = _grown(made, chance, largest)
        yield _off_the_nodes(made)


def wire(manifest: Any) -> bytes:
    """A manifest as the text that an API is sent. What Python takes for a number and JSON does not stays as it is."""
    parts = json.dumps(_marked(manifest)).split('"\\u0001')
    return "".join((parts[0], *(_nested(*part.split('"', 1)) for part in parts[1:]))).encode()


def _marked(value: Any) -> Any:
    if isinstance(value, Deep):
        return f"\x01{value}"
    if isinstance(value, dict):
        return {name: _marked(one) for name, one in value.items()}
    return [_marked(one) for one in value] if isinstance(value, list) else value


_NESTS = {"maps": ('{"a":', "}"), "lists": ("[", "]"), "mixed": ('{"]":[', "]}")}


def _nested(deep: str, rest: str) -> str:
    kind, _, count = deep.partition(":")
    opening, closing = _NESTS[kind]
    times = int(count) // (opening.count("{") + opening.count("["))
    return f"{opening * times}1{closing * times}{rest}"


def _fields() -> Iterator[tuple[Path, Raw]]:
    """Every field of a spec, and its schema."""

    def walk(schema: Raw, path: Path) -> Iterator[tuple[Path, Raw]]:
        for name, one in schema.get("properties", {}).items():
            yield (*path, name), one
            yield from walk(one, (*path, name))

    schema = crd.definition("ForecastJob")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    yield from walk(schema["properties"]["spec"], ("spec",))


FIELDS = dict(_fields())
_OPEN: list[Path] = [
    ("spec", "podTemplate", "spec", "affinity"),
    ("spec", "podTemplate", "spec", "x"),
    ("spec", "podTemplate", "metadata", "labels"),
    ("spec", "podTemplate", "spec", "containers"),
    ("spec", "spark", "conf", "spark.x"),
    ("spec", "model"),
    ("spec", "unknown"),
    ("status", "x"),
    ("metadata", "labels"),
]


def _odd(chance: Random) -> Any:
    """A value of any type."""
    simple = [None, True, False, chance.choice(NUMBERS), chance.choice(TEXTS), chance.choice(URIS), [], {}]
    return chance.choice(
        [
            *simple,
            [chance.choice(simple)] * chance.choice((1, 2, 3, 11, 1_000)),
            {chance.choice(TEXTS): chance.choice(simple), "x": chance.choice(simple)},
            [[[chance.choice(simple)]]],
        ]
    )


def _of_its_type(path: Path, schema: Raw, chance: Random) -> Any:
    """A value of the type that a field has, though an odd one."""
    choices: dict[str, list[Any]] = {"uri": URIS, "endpoint": ENDPOINTS, "schedule": CRONS, "timeZone": ZONES}
    special = choices.get(path[-1])
    if special and chance.random() < 0.8:
        return chance.choice(special)
    if "enum" in schema:
        return chance.choice([*schema["enum"], str(schema["enum"][0]).upper(), ""])
    match schema.get("type"):
        case "integer" | "number":
            return chance.choice([*NUMBERS, schema.get("minimum", 0), schema.get("maximum", 1)])
        case "boolean":
            return chance.choice([True, False, "true", 1])
        case "array":
            return [chance.choice(NUMBERS) for _ in range(chance.choice((0, 1, 2, 3, 3, 3, 10, 11, 500)))]
        case "object":
            return {chance.choice(["spark.x", *TEXTS]): chance.choice([*TEXTS, 3]) for _ in range(chance.randint(0, 4))}
    return chance.choice(TEXTS)


def _put(place: Any, path: Path, value: Any) -> Any:
    """A document with a value at a path, whatever was there; itself where the path leads through something else."""
    if not path:
        return value
    if not isinstance(place, dict):
        return place
    return place | {path[0]: _put(place.get(path[0], {}), path[1:], value)}


def _any_field(made: Any, chance: Random) -> Any:
    return _put(made, chance.choice(list(FIELDS)), _odd(chance))


def _typed_field(made: Any, chance: Random) -> Any:
    path = chance.choice(list(FIELDS))
    return _put(made, path, _of_its_type(path, FIELDS[path], chance))


def _missing_field(made: Any, chance: Random) -> Any:
    required = [("spec", "source"), ("spec", "output"), ("spec", "source", "columns"), ("spec", "output", "uri")]
    *parents, name = chance.choice([*required, ("spec", "source", "columns", "time"), ("spec",), ("apiVersion",)])
    place = made
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if isinstance(place, dict):
        place.pop(name, None)
    return made


def _unknown_field(made: Any, chance: Random) -> Any:
    parents = [("spec",), (), ("metadata",), ("spec", "source"), ("spec", "model"), ("spec", "podTemplate")]
    return _put(made, (*chance.choice(parents), chance.choice(["horizonn", "x", *TEXTS])), _odd(chance))


def _pod_spec(made: Any, chance: Random) -> Any:
    return _put(made, ("spec", "podTemplate", "spec"), deepcopy(chance.choice(POD_SPECS)))


def _pod_field(made: Any, chance: Random) -> Any:
    """Something odd in the midst of a pod template that is well otherwise."""
    paths = [(name,) for one in POD_SPECS for name in one]
    container = {
        "name": "almanac",
        chance.choice(("env", "resources", "ports", "image", "securityContext")): _odd(chance),
    }
    spec = chance.choice([{chance.choice(paths)[0]: _odd(chance)}, {"containers": [container]}])
    return _put(made, ("spec", "podTemplate", "spec"), spec)


def _pod_metadata(made: Any, chance: Random) -> Any:
    return _put(made, ("spec", "podTemplate", "metadata"), deepcopy(chance.choice(POD_METADATA)))


def _metadata(made: Any, chance: Random) -> Any:
    if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
        return made
    return made | {"metadata": made["metadata"] | deepcopy(chance.choice(METADATA))}


def _name(made: Any, chance: Random) -> Any:
    return _put(made, ("metadata", "name"), chance.choice(NAMES))


def _status(made: Any, chance: Random) -> Any:
    return _put(made, ("status",), deepcopy(chance.choice(STATUSES)))


def _something_else(made: Any, chance: Random) -> Any:
    path = chance.choice([(), ("spec",), ("metadata",), ("kind",), ("apiVersion",), ("spec", "source"), ("status",)])
    return _put(made, path, _odd(chance))


def _wide(made: Any, chance: Random) -> Any:
    """Very many of something."""
    many = chance.choice((257, 5_000, 20_000))
    wide: list[tuple[Path, Any]] = [
        (("spec", "spark", "conf"), {f"spark.{one}": "x" for one in range(many)}),
        (("spec", "intervals"), [1 + one / many for one in range(many)]),
        (("spec", "podTemplate", "spec", "nodeSelector"), {f"n{one}": "x" for one in range(many)}),
        (("spec", "podTemplate", "metadata", "annotations"), {f"n{one}": "x" for one in range(many)}),
        (("spec",), {f"f{one}": 1 for one in range(many)}),
    ]
    return _put(made, *chance.choice(wide))


def _grown(made: Any, chance: Random, largest: int) -> Any:
    """As large as the API server's store takes, more or less."""
    path = chance.choice(
        [("spec", "podTemplate", "spec", "x"), ("spec", "spark", "conf", "spark.x"), ("spec", "image")]
    )
    size = largest - len(wire(made)) + chance.choice((-100_000, -3_000, -600, -100, 1, 50_000))
    return _put(made, path, "x" * max(0, size))


def _off_the_nodes(made: Any) -> Any:
    """Pods of what is accepted are nothing that a node of a real cluster should run."""
    template = made.get("spec", {}).get("podTemplate", {}) if isinstance(made, dict) and _is_map(made, "spec") else None
    if template is None or not isinstance(template, dict) or not isinstance(template.get("spec", {}), dict):
        return made
    return _put(made, ("spec", "podTemplate", "spec"), {"schedulerName": SCHEDULER} | template.get("spec", {}))


def _is_map(place: Raw, name: str) -> bool:
    return isinstance(place.get(name), dict)


_CHANGES: dict[Callable[[Any, Random], Any], float] = {
    _any_field: 5,
    _typed_field: 8,
    _missing_field: 1,
    _unknown_field: 2,
    _pod_spec: 6,
    _pod_field: 3,
    _pod_metadata: 2,
    _metadata: 2,
    _name: 1,
    _status: 2,
    _something_else: 1,
    _wide: 0.5,
}
