"""What `deploy/` says is what the program knows: settings, roles, ports and names."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailyard.fleet.local.stage import read_stage
from mailyard.fleet.stage import Stage
from mailyard.queue.job import LANES
from mailyard.settings import SUBMISSION_PORT, SUBMISSIONS_PORT, Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = sorted((DEPLOY / "compose").glob("*.yaml"))
KINDS = {f"MAILYARD_{one.name.upper()}": one.metadata["kind"] for one in fields(Settings)}
COMMANDS = {"up", "api", "smtp", "worker", "scheduler", "migrate", "queue", "provision"}
FILLED = re.compile(r"\$\{(\w+):\?\}")
# Files that go over another one, and the services that they bring.
OVER = {
    "regions": ("fleet", {"copy"}),
    "shards": ("separate-roles", {"east", "worker-east", "scheduler-east-1", "scheduler-east-2"}),
}
EXAMPLES = {
    "POSTGRES_PASSWORD": "secret",
    "SERVICE_PASSWORD": "secret",
    "MAILYARD_REGION": "eu",
    "OTHER_PRIMARY": "10.9.0.5",
    "OTHER_PASSWORD": "secret",
    "MAILYARD_MASTER_KEY": "A" * 43 + "=",
}


def composed(file: Path) -> dict[str, Any]:
    """A file as Compose reads it, under its variables; over another where it is so made."""
    text = FILLED.sub(lambda found: EXAMPLES[found[1]], file.read_text())
    found = dict(yaml.safe_load(text))
    if file.stem not in OVER:
        return found
    name, brings = OVER[file.stem]
    under = composed(file.with_name(f"{name}.yaml"))
    assert brings | under["services"].keys() == found["services"].keys() | under["services"].keys()
    for name, one in found["services"].items():
        service = under["services"].setdefault(name, {})
        environment = {**service.get("environment", {}), **one.get("environment", {})}
        under["services"][name] = {**service, **one, "environment": environment}
    return under


def settings_in(environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield from ((name, str(value)) for name, value in environment.items() if "MAILYARD_" in name)


@pytest.mark.parametrize("file", COMPOSE, ids=[file.stem for file in COMPOSE])
def test_compose_files_set_what_there_is_to_what_is_allowed(file: Path) -> None:
    services = composed(file)["services"]
    own = {name: one for name, one in services.items() if one.get("image") == "mailyard:1"}
    assert own
    for name, service in own.items():
        assert set(service.get("command", ["up"])) <= COMMANDS, name
        for setting, value in settings_in(service.get("environment", {})):
            assert setting in KINDS, f"{file.name}: {name}: {setting}"
            KINDS[setting].parse(value)
        for needed in service.get("depends_on", []):
            assert needed in services
    for service in services.values():
        assert ":" in service["image"], "an image is pinned"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (file.parent / source).exists(), source


@pytest.mark.parametrize("name", ["separate-roles", "fleet"])
def test_a_lane_without_a_worker_is_in_no_compose_file_and_not_in_the_chart(name: str) -> None:
    services = composed(DEPLOY / f"compose/{name}.yaml")["services"]
    served = [
        lane
        for service in services.values()
        for lane in service.get("environment", {}).get("MAILYARD_WORKER_LANES", "").split(",")
        if lane
    ]
    assert sorted(served) == sorted(LANES)
    workers = values()["workers"]
    charted = [lane for worker in workers.values() for lane in worker["lanes"]]
    assert sorted(charted) == sorted(LANES)


def values() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "helm/mailyard/values.yaml").read_text()))


def test_the_chart_sets_what_there_is_to_what_is_allowed() -> None:
    for setting, value in settings_in(values()["settings"]):
        KINDS[setting].parse(value)
    templates = "".join(file.read_text() for file in (DEPLOY / "helm/mailyard/templates").iterdir())
    named = set(re.findall(r"MAILYARD_[A-Z_]+", templates))
    assert named and named <= KINDS.keys()


def test_kubernetes_waits_longer_than_a_drain() -> None:
    chart = values()
    assert chart["terminationGraceSeconds"] > chart["drainSeconds"] + 5


@pytest.mark.parametrize("name", ["separate-roles", "fleet"])
def test_balancers_lead_to_the_services_and_ports_that_there_are(name: str) -> None:
    services = composed(DEPLOY / f"compose/{name}.yaml")["services"]
    for file in (DEPLOY / "nginx/nginx.conf", DEPLOY / "haproxy/haproxy.cfg"):
        backends = set(re.findall(r"\b((?:api|smtp)-\d):(\d+)", file.read_text()))
        assert {name for name, _ in backends} <= services.keys()
        assert {port for name, port in backends if name.startswith("api")} == {str(Settings().port)}
        assert {port for name, port in backends if name.startswith("smtp")} <= {
            str(port) for port in (Settings().smtp_port, SUBMISSION_PORT, SUBMISSIONS_PORT)
        }
        assert f"smtp-1:{Settings().smtp_port}" in file.read_text()


def test_a_region_has_all_of_the_fleet_under_names_of_its_own_and_a_copy_of_another() -> None:
    services = composed(DEPLOY / "compose/regions.yaml")["services"]
    regions = tomllib.loads((DEPLOY / "regions/regions.toml").read_text())
    for name, service in services.items():
        if service.get("image") != "mailyard:1" or name == "provision":
            continue
        told = service["environment"]
        assert told["MAILYARD_REGION"] == "eu" and "MAILYARD_KAFKA_SERVERS" in told
        assert told["MAILYARD_BASE_URL"] == regions["eu"]["api"]
        assert told["MAILYARD_INBOX_DOMAIN"] in regions["eu"]["domains"]
        assert told["MAILYARD_HOSTNAME"] in regions["eu"]["smtp"]
    assert "copy" in services


def test_every_process_knows_the_clusters_and_each_cluster_has_processes_of_its_own() -> None:
    services = composed(DEPLOY / "compose/shards.yaml")["services"]
    own = {name: one for name, one in services.items() if one.get("image") == "mailyard:1"}
    shards = {one["environment"]["MAILYARD_SHARDS"] for one in own.values()}
    assert len(shards) == 1
    of_east = [one for one in own.values() if one["environment"].get("MAILYARD_SHARD") == "east"]
    assert [one["command"] for one in of_east] == [["worker"], ["scheduler"], ["scheduler"]]
    assert all("MAILYARD_DATABASE_URL" in one["environment"] for one in of_east)  # the directory


@pytest.mark.parametrize("stage", [Stage.SEPARATE_ROLES, Stage.FLEET])
def test_what_one_machine_starts_of_a_stage_is_in_its_compose_file(stage: Stage) -> None:
    """Each service, in its number; roles, in at least theirs."""
    services = composed(DEPLOY / f"compose/{stage.word}.yaml")["services"]
    numbers = Counter(re.sub(r"-\w+$", "", name) for name in services)
    local = read_stage(stage, ())
    counts = {"redis": "redis_servers", "sentinel": "sentinels", "kafka": "kafka_brokers"}
    for name, count in counts.items():
        assert numbers[name] == local.counts.get(count, 0), name
    names = {"pooler": "pgbouncer", "balancer": "nginx"}
    assert {names.get(name, name) for name in local.services} <= numbers.keys()
    for role in ("api", "smtp", "worker", "scheduler"):
        assert numbers[role] >= int(local.settings[f"{role}_processes"]), role


def test_the_stage_that_runs_here_has_the_configuration_of_nginx_that_is_deployed() -> None:
    packed = ROOT / "src/mailyard/fleet/local/nginx.conf"
    assert packed.read_text() == (DEPLOY / "nginx/nginx.conf").read_text(), (
        f"copy deploy/nginx/nginx.conf to {packed}: `mailyard up --stage 2` starts it as it is"
    )


def test_the_image_runs_as_nobody_special_and_listens_where_its_ports_are() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    environment = dict(re.findall(r"(MAILYARD_\w+)=(\S+)", text))
    for setting, value in environment.items():
        KINDS[setting].parse(value)
    exposed = re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)
    assert exposed is not None
    assert {str(Settings().port), str(Settings().smtp_port)} <= set(exposed[1].split())
