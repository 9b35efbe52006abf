"""A real Kubernetes control plane on loopback, and what tests do with it.

etcd, API server, controllers and scheduler are Kubernetes' own; kwok plays two nodes, whose pods
are Running and ready at once and whose jobs' pods complete. So everything but the containers is
real: admission, RBAC, server-side apply, deployments, autoscaling, garbage collection, helm.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import yaml
from cluster_certificates import Certificates
from running_platform import free_ports

from mailyard.storage.unprivileged import die_with_parent

VERSION = "1.37.0"  # of the schemas
MODULES = Path(__file__).parent / "services" / "kubernetes"
CHART = Path(__file__).resolve().parents[1] / "deploy" / "helm" / "mailyard"
NODES = 2
_CACHE = Path(os.environ.get("MAILYARD_FLEET_CACHE") or (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailyard-fleet"
))  # fmt: skip
_PATIENCE_S = 180.0


def _key(*names: str) -> str:
    return sha256(b"".join((MODULES / name).read_bytes() for name in names)).hexdigest()[:16]


TOOLS = _CACHE / f"kubernetes-{_key('go.mod', 'go.sum')}"
MODELS = _CACHE / f"kubernetes-models-{_key('models/package-lock.json', 'models/check.mjs')}"
CRDS = _CACHE / f"kubernetes-crds-{_key('crds.txt')}"
SCHEMAS = _CACHE / f"kubernetes-schemas-{_key('schemas.txt')}"


def is_installed() -> bool:
    """Whether the programs are here. In CI they must be."""
    if all((folder / "complete").exists() for folder in (TOOLS, SCHEMAS, MODELS, CRDS)):
        return True
    if os.environ.get("CI"):
        pytest.fail("Kubernetes is missing: tests/services/install_kubernetes.sh")
    return False


def tool(name: str, *arguments: str | Path, stdin: str = "", home: Path | None = None) -> str:
    """What one of the programs prints. Fails with what it said when it does."""
    environment = os.environ | ({"HOME": str(home)} if home else {})
    done = subprocess.run(
        [TOOLS / "bin" / name, *arguments],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{name} {arguments}: {done.stderr or done.stdout}"
    return done.stdout


def wrong_for_operators(objects: list[dict[str, Any]]) -> list[str]:
    """What KEDA and External Secrets would refuse of their own kinds of objects."""
    done = subprocess.run(
        ["node", MODELS / "check.mjs"],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return list(json.loads(done.stdout))


class Cluster:
    """Its processes, and a folder with what they keep. `url` is the API server's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = Certificates(folder / "pki")
        self._api_port, self._etcd_port, self._peer_port = free_ports(3)
        self._token = token_hex(16)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.kubeconfig = folder / "kubeconfig"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._api_port}"

    def start(self) -> None:
        """Until the nodes are ready for pods."""
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        self.kubeconfig.write_text(json.dumps(self._config()))
        self._etcd()
        self.start_api()
        self._controllers()
        for number in range(NODES):
            self.apply(_node(f"node-{number}"))
        self.until(lambda: self._nodes_ready() and self.get("serviceaccount", "default"))

    def start_api(self) -> None:
        """The API server alone, until it is ready."""
        pki = self.certificates
        self._begin(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._api_port}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki.server}",
            f"--tls-private-key-file={pki.server_key}",
            f"--client-ca-file={pki.authority}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki.accounts}",
            f"--service-account-signing-key-file={pki.accounts_key}",
            "--profiling=false",
            f"--requestheader-client-ca-file={pki.authority}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
        )
        self.until(self._api_ready)

    def stop_api(self) -> None:
        """As a control plane that is away. What it knows is in etcd."""
        one = self._running.pop("kube-apiserver")
        one.kill()
        one.wait(20)

    def stop(self) -> None:
        for name in reversed(list(self._running)):
            one = self._running.pop(name)
            one.kill()
            one.wait(20)

    def kubectl(self, *arguments: str | Path, stdin: str = "") -> str:
        return tool("kubectl", "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin)

    def helm(self, *arguments: str | Path) -> str:
        home = self.folder / "home"
        return tool("helm", "--kubeconfig", self.kubeconfig, *arguments, home=home)

    def apply(self, *things: dict[str, Any]) -> None:
        text = "\n---\n".join(map(json.dumps, things))
        self.kubectl("apply", "--server-side", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """One thing; None when there is none."""
        found = self.kubectl("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
        return None if not found.strip() else dict(json.loads(found))

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        chosen = ("-l", selector) if selector else ()
        found = self.kubectl("-n", namespace, "get", kind, *chosen, "-o", "json")
        return list(json.loads(found)["items"])

    def everything(self, namespace: str, *kinds: str) -> set[str]:
        """All things of these kinds in a namespace, as kind/name."""
        found = self.kubectl("-n", namespace, "get", ",".join(kinds), "-o", "name")
        return set(found.split())

    def until(self, condition: Any, patience_s: float = _PATIENCE_S) -> Any:
        """What `condition` gives once it is true. Fails after `patience_s`, or when a process of
        the control plane ends."""
        deadline = time.monotonic() + patience_s
        while not (found := condition()):
            for name, one in self._running.items():
                assert one.poll() is None, f"{name} has ended: {self._log(name)[-2000:]}"
            assert time.monotonic() < deadline, f"waited {patience_s} s for {condition}"
            time.sleep(0.1)
        return found

    def _etcd(self) -> None:
        clients = f"http://127.0.0.1:{self._etcd_port}"
        peers = f"http://127.0.0.1:{self._peer_port}"
        self._begin(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )

    def _controllers(self) -> None:
        mine = f"--kubeconfig={self.kubeconfig}"
        quiet = ("--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0")
        pki = self.certificates
        self._begin(
            "kube-controller-manager",
            mine,
            *quiet,
            f"--service-account-private-key-file={pki.accounts_key}",
            f"--root-ca-file={pki.authority}",
            "--allocate-node-cidrs=false",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=0s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
        )
        self._begin("kube-scheduler", mine, *quiet)
        stages = sorted((TOOLS / "stages").iterdir())
        self._begin(
            "kwok",
            mine,
            "--manage-all-nodes=true",
            "--cidr=10.244.0.0/16",
            "--node-ip=127.0.0.1",
            "--node-lease-duration-seconds=40",
            *(f"--config={file}" for file in stages),
        )

    def _begin(self, program: str, *arguments: str) -> None:
        log = (self.folder / f"{program}.log").open("ab")
        self._running[program] = subprocess.Popen(
            [TOOLS / "bin" / program, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
        )

    def _log(self, program: str) -> str:
        return (self.folder / f"{program}.log").read_text("utf-8", "replace")

    def _api_ready(self) -> bool:
        done = subprocess.run(
            [TOOLS / "bin" / "kubectl", "--kubeconfig", self.kubeconfig, "get", "--raw", "/readyz"],
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode == 0

    def _nodes_ready(self) -> bool:
        states = [
            condition["status"]
            for node in self.list("nodes", "default")
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready"
        ]
        return states == ["True"] * NODES

    def _config(self) -> dict[str, Any]:
        authority = str(self.certificates.authority)
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.url, "certificate-authority": authority}}
            ],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "admin"}}],
            "current-context": "c",
        }


def _node(name: str) -> dict[str, Any]:
    room = {"cpu": "64", "memory": "256Gi", "pods": "500"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "status": {"allocatable": room, "capacity": room},
    }


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for as long as the block lasts."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def rendered(
    *settings: str, values: Path | None = None, release: str = "yard"
) -> list[dict[str, Any]]:
    """The chart's objects, hooks too, with these values (`scaling.by=keda`)."""
    text = tool("helm", "template", release, CHART, *_sets(settings), *_files(values))
    return [one for one in yaml.safe_load_all(text) if one]


def _sets(settings: Sequence[str]) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


def _files(values: Path | None) -> list[str]:
    return [] if values is None else ["-f", str(values)]
