"""What Kubernetes' autoscaler asks for metrics, served on loopback.

Queues as an adapter of external metrics serves them, processors of pods as metrics-server does.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cluster_certificates import Certificates

EXTERNAL = "external.metrics.k8s.io"
RESOURCE = "metrics.k8s.io"
VERSION = "v1beta1"


class Metrics:
    """`queues`: depth by queue. `cpu_cores`: of each pod of a component. `pods`: names of the pods
    that a label selector finds."""

    def __init__(self, pods: Callable[[str], list[str]]) -> None:
        self.queues: dict[str, int] = {}
        self.cpu_cores: dict[str, float] = {}
        self.pods = pods
        self.asked: list[str] = []

    def answer(self, path: str) -> dict[str, Any] | None:
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")
        if words[:3] == ["apis", EXTERNAL, VERSION]:
            return self._external(words[3:], parse_qs(parts.query))
        if words[:3] == ["apis", RESOURCE, VERSION]:
            return self._resource(words[3:], parse_qs(parts.query))
        return None

    def _external(self, words: list[str], query: dict[str, list[str]]) -> dict[str, Any]:
        if not words:
            return _resources(EXTERNAL, "mailyard_queue_depth", "ExternalMetricValueList")
        labels = _labels(query)
        self.asked.append(labels.get("queue", ""))
        value = self.queues.get(labels.get("queue", ""), 0)
        one = {
            "metricName": words[-1],
            "metricLabels": labels,
            "timestamp": "2026-01-01T00:00:00Z",
            "value": str(value),
        }
        return {
            "kind": "ExternalMetricValueList",
            "apiVersion": f"{EXTERNAL}/{VERSION}",
            "metadata": {},
            "items": [one] if words[-1] == "mailyard_queue_depth" else [],
        }

    def _resource(self, words: list[str], query: dict[str, list[str]]) -> dict[str, Any]:
        if not words:
            return _resources(RESOURCE, "pods", "PodMetrics")
        labels = _labels(query)
        component = labels.get("app.kubernetes.io/component", "")
        role = component.partition("-")[0]
        cores = f"{round(self.cpu_cores.get(component, 0.01) * 1000)}m"
        return {
            "kind": "PodMetricsList",
            "apiVersion": f"{RESOURCE}/{VERSION}",
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": name, "namespace": words[1], "labels": labels},
                    "timestamp": "2026-01-01T00:00:00Z",
                    "window": "30s",
                    "containers": [{"name": role, "usage": {"cpu": cores, "memory": "100Mi"}}],
                }
                for name in self.pods(query.get("labelSelector", [""])[0])
            ],
        }


def _labels(query: dict[str, list[str]]) -> dict[str, str]:
    pairs = (one.partition("=") for one in query.get("labelSelector", [""])[0].split(",") if one)
    return {name: value for name, _, value in pairs}


def _resources(group: str, name: str, kind: str) -> dict[str, Any]:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{VERSION}",
        "resources": [
            {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
        ],
    }


def registration(port: int) -> list[dict[str, Any]]:
    """What tells the API server to ask `port` of this machine for both kinds of metrics."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "metrics", "namespace": "kube-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    return [
        service,
        *(
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{VERSION}.{group}"},
                "spec": {
                    "group": group,
                    "version": VERSION,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": True,
                    "service": {"name": "metrics", "namespace": "kube-system", "port": port},
                },
            }
            for group in (EXTERNAL, RESOURCE)
        ),
    ]


@contextmanager
def served(metrics: Metrics, certificates: Certificates) -> Iterator[int]:
    """The port, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = metrics.answer(self.path)
            body = json.dumps(found or {"kind": "Status", "code": 404}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: the test says what it saw."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
