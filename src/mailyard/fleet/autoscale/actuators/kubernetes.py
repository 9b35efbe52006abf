"""Kubernetes: the replicas of a Deployment, by server-side apply.

https://kubernetes.io/docs/reference/using-api/server-side-apply/ : we own `spec.replicas` and
nothing else, so that a chart that leaves the field out never undoes us. Where somebody else owns it
(a manifest with the field, an autoscaler of Kubernetes, a person's `kubectl scale`) we do not take
it from him: two who scale one Deployment undo each other for ever. He is named instead.

The service account needs `get` and `patch` on those Deployments. Its token is read at each call,
because it rotates.
"""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mailyard.core.errors import ConfigurationError, Conflict, Unavailable
from mailyard.fleet.autoscale.policy import Policy

if TYPE_CHECKING:
    from mailyard.net.http import HttpAnswer, HttpClient

MANAGER = "mailyard-autoscaler"
_TOTAL_S = 10.0


class _Spec(msgspec.Struct):
    replicas: int = 1


class _Deployment(msgspec.Struct):
    spec: _Spec


class _Status(msgspec.Struct):
    """What the API server says of a request that it refuses."""

    message: str = ""


def _said(answer: "HttpAnswer") -> str:
    try:
        message = msgspec.json.decode(answer.body, type=_Status).message
    except msgspec.DecodeError:
        message = answer.body.decode("utf-8", "replace")
    return message[:300] or f"status {answer.status}"


def authority(folder: Path) -> ssl.SSLContext | None:
    """Trust in the cluster's own authority, when the folder of the service account names one."""
    file = folder / "ca.crt"
    return ssl.create_default_context(cafile=str(file)) if file.is_file() else None


class KubernetesActuator:
    """`url`: the API server. `folder`: the service account's `token` and `namespace`."""

    name = "kubernetes"

    def __init__(self, *, http: "HttpClient", url: str, folder: Path) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._folder = folder

    async def instances(self, policy: Policy) -> int | None:
        answer = await self._ask("GET", policy, b"")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Unavailable(
                f"Kubernetes answers {answer.status} for {policy.deployment}: {_said(answer)}"
            )
        return msgspec.json.decode(answer.body, type=_Deployment).spec.replicas

    async def set(self, policy: Policy, count: int) -> None:
        wanted = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": policy.deployment},
            "spec": {"replicas": count},
        }
        answer = await self._ask("PATCH", policy, msgspec.json.encode(wanted))
        if answer.status == 409:
            raise Conflict(
                f"the replicas of {policy.deployment} are another's: {_said(answer)}; leave them "
                f"out of its manifest and its HorizontalPodAutoscaler away, or give them to "
                f"{MANAGER} (docs/AUTOSCALING.md)"
            )
        if answer.status not in (200, 201):
            raise Unavailable(f"Kubernetes refuses to scale {policy.deployment}: {_said(answer)}")

    async def _ask(self, method: str, policy: Policy, body: bytes) -> "HttpAnswer":
        if not policy.deployment:
            raise ConfigurationError(
                f"[{policy.group}] of the autoscaler's file names no deployment: set it to the "
                "Deployment of these processes"
            )
        place = f"/apis/apps/v1/namespaces/{self._read('namespace')}/deployments/"
        asked = f"?fieldManager={MANAGER}" if method == "PATCH" else ""
        headers = {"Authorization": f"Bearer {self._read('token')}", "Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/apply-patch+yaml"  # JSON is YAML
        return await self._http.request(
            method,
            f"{self._url}{place}{policy.deployment}{asked}",
            headers=headers,
            body=body,
            total_s=_TOTAL_S,
        )

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text("utf-8").strip()
        except OSError as error:
            raise Unavailable(f"the service account's {name} cannot be read: {error}") from error
