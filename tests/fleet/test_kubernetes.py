"""The chart in a real Kubernetes: linted, held to schemas, installed, scaled, taken away."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from external_metrics import Metrics, registration, served
from kubernetes_cluster import (
    CHART,
    CRDS,
    SCHEMAS,
    TOOLS,
    VERSION,
    Cluster,
    is_installed,
    rendered,
    running_cluster,
    tool,
    wrong_for_operators,
)

from mailyard.app import Application
from mailyard.core.errors import Conflict, Unavailable
from mailyard.fleet.autoscale.actuators.kubernetes import KubernetesActuator
from mailyard.fleet.autoscale.policy import Policy
from mailyard.settings import load_settings
from mailyard.settings.load import PREFIX

pytestmark = pytest.mark.skipif(not is_installed(), reason="Kubernetes is not installed here")

MODES = ("hpa", "keda", "mailyard", "none")
EVERYTHING = (
    *("deployments", "replicasets", "pods", "jobs", "services", "configmaps", "serviceaccounts"),
    *("poddisruptionbudgets", "networkpolicies", "horizontalpodautoscalers"),
    *("roles", "rolebindings", "ingresses"),
)
COMPONENTS = ("api", "smtp", "scheduler", "worker-mail", "worker-bulk", "worker-other")
SCALED = tuple(one for one in COMPONENTS if one != "scheduler")
OUTSIDE = ("secrets.external.enabled=true", "secrets.external.store.name=vault")
SHARD = ("shards.east.worker.replicas=1", "shards.east.scheduler.replicas=1")
WHOLE = ("scaling.queueMetrics=true", "api.ingress.enabled=true", *OUTSIDE, *SHARD)
OPERATORS = ("ScaledObject", "ExternalSecret")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("kubernetes")) as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """One of its own, where only pods are let in that may do nothing special."""
    name = request.node.name.split("[")[0].replace("_", "-")[:50].strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mailyard", "namespace": name},
        "stringData": {"MAILYARD_DATABASE_URL": "postgresql://db/mailyard"},
    }
    cluster.apply({"apiVersion": "v1", **space}, secret)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def install(cluster: Cluster, namespace: str, *settings: str) -> None:
    chosen = [word for one in settings for word in ("--set", one)]
    cluster.helm(
        "upgrade",
        "--install",
        "yard",
        CHART,
        "-n",
        namespace,
        "--wait",
        "--timeout",
        "300s",
        *chosen,
    )


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def pods_of(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


# What is rendered.


@pytest.mark.parametrize("mode", MODES)
def test_the_chart_is_without_fault_in_every_mode(mode: str) -> None:
    tool("helm", "lint", "--strict", CHART, "--set", f"scaling.by={mode}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "plain"])
def test_every_object_is_as_its_schema_wants_it(mode: str, whole: bool) -> None:
    objects = rendered(f"scaling.by={mode}", *(WHOLE if whole else ()))
    said = tool(
        "kubeconform",
        *("-strict", "-summary", "-output", "json", "-kubernetes-version", VERSION),
        *("-schema-location", str(SCHEMAS)),
        *("-skip", ",".join(OPERATORS)),
        "-",
        stdin=yaml.safe_dump_all(objects),
    )
    summary = json.loads(said)["summary"]
    foreign = [one for one in objects if one["kind"] in OPERATORS]
    assert (summary["invalid"], summary["errors"], summary["skipped"]) == (0, 0, len(foreign))
    assert summary["valid"] == len(objects) - len(foreign) > 15
    assert wrong_for_operators(foreign) == []


def test_a_wrong_object_of_an_operator_is_found() -> None:
    scaled = of_kind(rendered("scaling.by=keda"), "ScaledObject")["yard-api"]
    scaled["spec"]["minReplicaCount"] = "two"
    (said,) = wrong_for_operators([scaled])
    assert "minReplicaCount must be integer" in said


@pytest.mark.parametrize(
    "wrong",
    [
        "secrets.external.enabled=true",
        "scaling.by=magic",
        "api.min=0",
        "drainSeconds=90",
        "api.cpu=seventy",
        "wokers.x.min=1",
    ],
)
def test_values_that_cannot_be_are_refused(wrong: str) -> None:
    done = subprocess.run(
        [TOOLS / "bin" / "helm", "template", "yard", CHART, "--set", wrong],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and done.stderr, wrong


@pytest.mark.parametrize("mode", MODES)
def test_every_container_may_do_nothing_special(mode: str) -> None:
    seen = 0
    for name, pod in pods_of(rendered(f"scaling.by={mode}")):
        own = pod["securityContext"]
        assert own["runAsNonRoot"] and own["runAsUser"] == 10001, name
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {one["mountPath"] for one in container["volumeMounts"]} >= {"/data", "/tmp"}
            assert "memory" in container["resources"]["limits"], name
            seen += 1
        token = mode == "mailyard" and name == "yard-scheduler"
        assert pod["automountServiceAccountToken"] is token, name
    assert seen == len(COMPONENTS) + 1


def test_every_role_is_looked_after_and_stops_in_its_own_time() -> None:
    objects = rendered()
    settings = of_kind(objects, "ConfigMap")["yard"]["data"]
    drain_s = float(settings["MAILYARD_DRAIN_S"])
    deployments = of_kind(objects, "Deployment")
    assert set(deployments) == {f"yard-{one}" for one in COMPONENTS}
    for name, one in deployments.items():
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"startupProbe", "livenessProbe"} <= container.keys(), name
        before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        pause_s = float(before[1]) if before else 0.0
        assert pod["terminationGracePeriodSeconds"] >= drain_s + pause_s + 10, name
        assert bool(before) is ("readinessProbe" in container) is (name[5:] in ("api", "smtp"))
        (rule,) = pod["affinity"]["podAntiAffinity"].values()
        spread = rule[0]["podAffinityTerm"]
        assert spread["topologyKey"] == "kubernetes.io/hostname", name
        assert spread["labelSelector"]["matchLabels"] == one["spec"]["selector"]["matchLabels"]
        assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert set(budgets) == set(deployments)
    for name, budget in budgets.items():
        assert budget["spec"]["selector"] == deployments[name]["spec"]["selector"]


def test_each_database_cluster_has_workers_and_schedulers_of_its_own() -> None:
    plain, sharded = rendered(), rendered(*SHARD, "shards.east.worker.replicas=2")
    before, after = of_kind(plain, "Deployment"), of_kind(sharded, "Deployment")
    added = {name: one["spec"] for name, one in after.items() if name not in before}
    assert {name: one["replicas"] for name, one in added.items()} == {
        "yard-shard-east-worker": 2,
        "yard-shard-east-scheduler": 1,
    }
    for name, spec in added.items():
        (container,) = spec["template"]["spec"]["containers"]
        told = {one["name"]: one["value"] for one in container["env"]}
        assert told["MAILYARD_SHARD"] == "east" and "MAILYARD_WORKER_LANES" not in told
        assert container["args"] == [name.rpartition("-")[2]]
    assert of_kind(sharded, "PodDisruptionBudget").keys() == after.keys()
    assert of_kind(sharded, "HorizontalPodAutoscaler").keys() == (
        of_kind(plain, "HorizontalPodAutoscaler").keys()
    )


def test_only_pages_and_mail_are_let_in() -> None:
    policies = of_kind(rendered(), "NetworkPolicy")
    everywhere = policies["yard"]["spec"]
    assert everywhere["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "mailyard",
        "app.kubernetes.io/instance": "yard",
    }
    assert everywhere["policyTypes"] == ["Ingress", "Egress"] and everywhere["ingress"] == []
    let_in = {
        name: {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        for name, policy in policies.items()
        if name != "yard"
    }
    assert let_in == {"yard-api": {8025}, "yard-smtp": {2525, 2587, 2465}}


def test_hpa_goes_by_the_processor_at_70_percent_and_by_each_queue() -> None:
    objects = rendered("scaling.by=hpa", "scaling.queueMetrics=true")
    scalers = of_kind(objects, "HorizontalPodAutoscaler")
    assert set(scalers) == {f"yard-{one}" for one in SCALED}
    for scaler in scalers.values():
        (cpu, *queues) = scaler["spec"]["metrics"]
        assert cpu["resource"] == {
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 70},
        }
        assert all(one["type"] == "External" for one in queues)
    named = [
        one["external"]["metric"]["selector"]["matchLabels"]["queue"]
        for scaler in scalers.values()
        for one in scaler["spec"]["metrics"][1:]
    ]
    lanes = yaml.safe_load((CHART / "values.yaml").read_text())["workers"].values()
    assert sorted(named) == sorted(lane for one in lanes for lane in one["lanes"])


def test_keda_goes_by_the_processor_and_by_each_queue() -> None:
    scaled = of_kind(rendered("scaling.by=keda"), "ScaledObject")
    assert set(scaled) == {f"yard-{one}" for one in SCALED}
    mail = scaled["yard-worker-mail"]["spec"]
    assert mail["scaleTargetRef"] == {"name": "yard-worker-mail"}
    assert [one["type"] for one in mail["triggers"]] == ["cpu"] + ["prometheus"] * 4
    assert 'mailyard_queue_depth{queue="email-send"}' in mail["triggers"][1]["metadata"]["query"]


@pytest.mark.parametrize("mode", MODES)
def test_one_alone_decides_how_many_there_are(mode: str) -> None:
    objects = rendered(f"scaling.by={mode}")
    for name, one in of_kind(objects, "Deployment").items():
        by_chart = mode == "none" or name == "yard-scheduler"
        assert ("replicas" in one["spec"]) is by_chart, name
    settings = of_kind(objects, "ConfigMap")["yard"]["data"]
    said = {"hpa": "outside", "keda": "outside", "mailyard": "kubernetes", "none": None}[mode]
    assert settings.get("MAILYARD_AUTOSCALE") == said


def test_secrets_from_outside_are_there_before_the_migrations() -> None:
    objects = rendered(*OUTSIDE)
    secrets = of_kind(objects, "ExternalSecret")
    assert set(secrets) == {"mailyard", "yard-migrate"}
    job = of_kind(objects, "Job")["yard-migrate"]
    hooks = [one["metadata"]["annotations"] for one in (secrets["yard-migrate"], job)]
    assert [one["helm.sh/hook"] for one in hooks] == ["pre-install,pre-upgrade"] * 2
    assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1]["helm.sh/hook-weight"])
    assert all("hook-succeeded" in one["helm.sh/hook-delete-policy"] for one in hooks)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    made = secrets["yard-migrate"]["spec"]["target"]["name"]
    assert container["envFrom"] == [{"secretRef": {"name": made}}]
    assert "annotations" not in secrets["mailyard"]["metadata"]


# What is installed.


def test_it_is_installed_upgraded_and_taken_away_without_a_trace(
    cluster: Cluster, namespace: str
) -> None:
    before = cluster.everything(namespace, *EVERYTHING)
    install(cluster, namespace, "scaling.by=none")
    for one in COMPONENTS:
        deployment = cluster.get("deployment", f"yard-{one}", namespace)
        assert deployment is not None
        status = deployment["status"]
        assert status["readyReplicas"] == deployment["spec"]["replicas"], one
    assert cluster.list("jobs", namespace) == [], "the migrations have run and are gone"
    events = cluster.list("events", namespace)
    assert any(
        one["reason"] == "Completed" and one["involvedObject"]["name"] == "yard-migrate"
        for one in events
    )
    (first,) = {
        one["metadata"]["labels"]["pod-template-hash"] for one in _pods(cluster, namespace, "api")
    }
    install(cluster, namespace, "scaling.by=none", "settings.MAILYARD_LOG_LEVEL=debug")
    cluster.until(lambda: _hashes(cluster, namespace) not in (set(), {first}))
    config = cluster.get("configmap", "yard", namespace)
    assert config is not None and config["data"]["MAILYARD_LOG_LEVEL"] == "debug"
    cluster.helm("uninstall", "yard", "-n", namespace, "--wait", "--timeout", "300s")
    cluster.until(lambda: cluster.everything(namespace, *EVERYTHING) == before)
    left = cluster.everything(namespace, "secrets")
    assert left == {"secret/mailyard"}, "and the operator's own Secret stays"


def test_objects_of_operators_are_taken_by_their_real_definitions(
    cluster: Cluster, namespace: str
) -> None:
    """By the API server, with the definitions that KEDA and External Secrets ship."""
    for file in sorted(CRDS.glob("*.yaml")):
        cluster.kubectl("apply", "--server-side", "-f", file)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", file)
    install(cluster, namespace, "scaling.by=keda", *OUTSIDE)
    there = cluster.everything(namespace, "scaledobjects.keda.sh")
    assert there == {f"scaledobject.keda.sh/yard-{one}" for one in SCALED}
    secret = cluster.get("externalsecrets.external-secrets.io", "mailyard", namespace)
    assert secret is not None and secret["spec"]["secretStoreRef"]["name"] == "vault"
    wrong = of_kind(rendered("scaling.by=keda"), "ScaledObject")["yard-api"]
    wrong["metadata"] = {"name": "wrong", "namespace": namespace}
    wrong["spec"]["minReplicaCount"] = "two"
    with pytest.raises(AssertionError, match="minReplicaCount"):
        cluster.apply(wrong)
    cluster.helm("uninstall", "yard", "-n", namespace, "--wait", "--timeout", "60s")
    cluster.until(lambda: not cluster.everything(namespace, "scaledobjects.keda.sh"))


def _pods(cluster: Cluster, namespace: str, component: str) -> list[dict[str, Any]]:
    return cluster.list("pods", namespace, f"app.kubernetes.io/component={component}")


def _names(cluster: Cluster, namespace: str, component: str) -> list[str]:
    return [one["metadata"]["name"] for one in _pods(cluster, namespace, component)]


def _hashes(cluster: Cluster, namespace: str) -> set[str]:
    return {
        one["metadata"]["labels"]["pod-template-hash"]
        for one in _pods(cluster, namespace, "api")
        if "deletionTimestamp" not in one["metadata"]
    }


def test_no_machine_has_both_of_a_role_and_one_may_always_be_drained(
    cluster: Cluster, namespace: str
) -> None:
    install(cluster, namespace, "scaling.by=none")
    for component in ("api", "smtp", "scheduler"):
        machines = {one["spec"]["nodeName"] for one in _pods(cluster, namespace, component)}
        assert len(machines) == 2, component

    def allowed() -> bool:
        budgets = cluster.list("poddisruptionbudgets", namespace)
        return all(one.get("status", {}).get("disruptionsAllowed") == 1 for one in budgets)

    cluster.until(allowed)
    pod = _pods(cluster, namespace, "api")[0]["metadata"]["name"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    place = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", place, "-f", "-", stdin=json.dumps(eviction))
    cluster.until(
        lambda: pod not in [one["metadata"]["name"] for one in _pods(cluster, namespace, "api")]
    )


def test_hpa_follows_a_queue_and_the_processor(cluster: Cluster, namespace: str) -> None:
    metrics = Metrics(
        lambda selector: [
            one["metadata"]["name"] for one in cluster.list("pods", namespace, selector)
        ]
    )
    with served(metrics, cluster.certificates) as port:
        cluster.apply(*registration(port))
        try:
            install(cluster, namespace, "scaling.by=hpa", "scaling.queueMetrics=true")

            def count(component: str) -> int:
                found = cluster.get("deployment", f"yard-{component}", namespace)
                return 0 if found is None else int(found["status"].get("readyReplicas", 0))

            cluster.until(lambda: count("worker-mail") == 2 and count("api") == 2)
            metrics.queues["email-send"] = 750  # at most 100 a process
            metrics.cpu_cores["api"] = 0.35  # 140 % of what it asks for, and 70 % is enough
            cluster.until(lambda: count("worker-mail") == 8 and count("api") >= 4)
            assert count("worker-bulk") == 1 and count("smtp") == 2
            assert {"email-send", "inbound-email", "email-bulk"} <= set(metrics.asked)
        finally:
            for group in ("external.metrics.k8s.io", "metrics.k8s.io"):
                cluster.kubectl("delete", "apiservice", f"v1beta1.{group}")


# Mailyard's own autoscaler.


@pytest.fixture
def account(cluster: Cluster, namespace: str, tmp_path: Path) -> Path:
    """A pod's folder of its service account, as the scheduler of an installed chart has it."""
    install(cluster, namespace, "scaling.by=mailyard")
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "namespace").write_text(namespace)
    (folder / "ca.crt").write_bytes(cluster.certificates.authority.read_bytes())
    (folder / "token").write_text(cluster.kubectl("-n", namespace, "create", "token", "yard"))
    return folder


@pytest.fixture
async def application(
    cluster: Cluster, namespace: str, account: Path, tmp_path: Path
) -> AsyncIterator[Application]:
    """The services as the chart's own settings make them."""
    config = cluster.get("configmap", "yard", namespace)
    policies = cluster.get("configmap", "yard-autoscale", namespace)
    assert config is not None and policies is not None
    file = tmp_path / "autoscale.toml"
    file.write_text(policies["data"]["autoscale.toml"])
    settings = {name: value for name, value in config["data"].items() if name.startswith(PREFIX)}
    application = Application(
        load_settings(
            settings
            | {
                "MAILYARD_DATABASE_URL": "postgresql://db/mailyard",
                "MAILYARD_DATABASE_DIRECT_URL": "postgresql://db/mailyard",
                "MAILYARD_AUTOSCALE_FILE": str(file),
                "MAILYARD_AUTOSCALE_KUBERNETES_URL": cluster.url,
                "MAILYARD_AUTOSCALE_KUBERNETES_FOLDER": str(account),
            }
        )
    )
    yield application
    for end in reversed(application.ends):
        await end()


def policy_of(application: Application, group: str) -> Policy:
    return next(one for one in application.scale_policies if one.group == group)


async def test_the_chart_s_policies_scale_the_chart_s_deployments(
    cluster: Cluster, namespace: str, application: Application
) -> None:
    assert {one.group for one in application.scale_policies} == set(SCALED)
    assert await application.scaling_trouble() == {}
    actuator = application.kubernetes_actuator()
    mail = policy_of(application, "worker-mail")
    assert (mail.deployment, mail.least, mail.most) == ("yard-worker-mail", 2, 20)
    assert await actuator.instances(mail) == 1
    await actuator.set(mail, 5)
    assert await actuator.instances(mail) == 5
    cluster.until(lambda: len(_pods(cluster, namespace, "worker-mail")) == 5)
    await actuator.set(mail, 4)
    mine = [
        one["fieldsV1"]
        for one in managers(cluster, namespace, "yard-worker-mail")
        if one["manager"] == "mailyard-autoscaler"
    ]
    assert mine == [{"f:spec": {"f:replicas": {}}}], "it owns the number and nothing else"
    install(cluster, namespace, "scaling.by=mailyard", "settings.MAILYARD_LOG_LEVEL=debug")
    assert await actuator.instances(mail) == 4, "an upgrade leaves the number alone"


def managers(cluster: Cluster, namespace: str, name: str) -> list[dict[str, Any]]:
    shown = cluster.kubectl(
        "-n", namespace, "get", "deployment", name, "--show-managed-fields", "-o", "json"
    )
    return list(json.loads(shown)["metadata"]["managedFields"])


async def test_the_account_may_scale_its_own_deployments_and_nothing_else(
    cluster: Cluster, namespace: str, application: Application
) -> None:
    actuator = application.kubernetes_actuator()
    scheduler = Policy("other", "worker", deployment="yard-scheduler")
    with pytest.raises(Unavailable, match=r'403.*cannot get resource "deployments"'):
        await actuator.instances(scheduler)
    with pytest.raises(Unavailable, match="refuses to scale yard-scheduler"):
        await actuator.set(scheduler, 0)
    who = f"--as=system:serviceaccount:{namespace}:yard"
    for verb, thing in (
        ("list", "deployments"), ("delete", "deployment/yard-api"), ("get", "secrets"),
        ("create", "pods"), ("patch", "deployment/yard-scheduler"),
    ):  # fmt: skip
        done = subprocess.run(
            [TOOLS / "bin" / "kubectl", "--kubeconfig", cluster.kubeconfig, "-n", namespace,
             "auth", "can-i", verb, thing, who],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.strip() == "no", (verb, thing)


async def test_who_else_scales_is_named_and_not_overruled(
    cluster: Cluster, namespace: str, application: Application
) -> None:
    actuator = application.kubernetes_actuator()
    api = policy_of(application, "api")
    await actuator.set(api, 2)
    cluster.kubectl("-n", namespace, "scale", "deployment", "yard-api", "--replicas=3")
    with pytest.raises(Conflict, match=r'replicas of yard-api are another\'s.*"kubectl"'):
        await actuator.set(api, 6)
    assert await actuator.instances(api) == 3
    given = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "yard-api", "namespace": namespace},
        "spec": {"replicas": 4},  # another number: he who says the same stays an owner
    }
    cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=mailyard-autoscaler"),
        *("-f", "-"),
        stdin=json.dumps(given),
    )
    await actuator.set(api, 6)
    assert await actuator.instances(api) == 6


async def test_a_deployment_that_is_not_there_is_named(application: Application) -> None:
    actuator = application.kubernetes_actuator()
    gone = Policy("gone", "worker", deployment="yard-worker-mail-2")
    with pytest.raises(Unavailable, match="yard-worker-mail-2"):
        await actuator.instances(gone)


async def test_an_api_server_that_is_away_costs_nothing_but_time(
    cluster: Cluster, namespace: str, application: Application
) -> None:
    actuator = application.kubernetes_actuator()
    api = policy_of(application, "api")
    await actuator.set(api, 3)
    cluster.stop_api()
    try:
        with pytest.raises(Unavailable):
            await actuator.instances(api)
        with pytest.raises(Unavailable):
            await actuator.set(api, 4)
        trouble = await application.scaling_trouble()
        assert set(trouble) == set(SCALED)
    finally:
        cluster.start_api()
    assert await actuator.instances(api) == 3
    await actuator.set(api, 4)
    assert await actuator.instances(api) == 4


async def test_a_token_that_is_no_more_is_told(application: Application, account: Path) -> None:
    (account / "token").write_text("no.such.token")
    api = policy_of(application, "api")
    actuator = application.kubernetes_actuator()
    assert isinstance(actuator, KubernetesActuator)
    with pytest.raises(Unavailable, match="401"):
        await actuator.instances(api)
    (account / "token").unlink()
    with pytest.raises(Unavailable, match="service account's token cannot be read"):
        await actuator.instances(api)
