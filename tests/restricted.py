"""Whether a pod keeps to the restricted Pod Security Standard."""

from __future__ import annotations

from typing import Any


def is_restricted(spec: dict[str, Any]) -> bool:
    """The restricted Pod Security Standard, as its page has it."""
    context = spec["securityContext"]
    shares = any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
    mounts = {kind for volume in spec.get("volumes", ()) for kind in volume} - {"name", "secret"} <= allowed
    return not shares and mounts and all(is_restricted_container(one, context) for one in spec["containers"])


def is_restricted_container(container: dict[str, Any], pod: dict[str, Any]) -> bool:
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
