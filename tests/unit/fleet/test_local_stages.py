"""What one machine starts of a stage: data, programs, ports, and the configuration of nginx."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.local import program, yard
from mailyard.fleet.local.place import Place
from mailyard.fleet.local.program import Program
from mailyard.fleet.local.services.balancer import WAYS, Balancer, Front
from mailyard.fleet.local.stage import read_stage, read_stages
from mailyard.fleet.local.yard import Yard
from mailyard.fleet.stage import Stage
from mailyard.settings import given_settings, load_settings

FRONT = Front("127.0.0.1", 8025, "127.0.0.1", 2525, submission_port=2587)


def say(_name: str, _line: str) -> None:
    """Nobody listens."""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is there."""
    monkeypatch.setattr(yard, "check_all", lambda _needed, _stage: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_every_stage_is_known_here_and_what_it_is_told_is_allowed() -> None:
    stages = read_stages()
    assert set(stages) == set(Stage)
    for one in stages.values():
        settings = load_settings({}, beneath=one.settings)
        assert settings.instances <= settings.most_instances


def test_a_stage_that_lacks_a_setting_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"stage 4 \(regions\).*MAILYARD_REGION.*DATA"):
        read_stage(Stage.REGIONS, ())
    assert read_stage(Stage.REGIONS, ("region", "regions_file")).services


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("[fleet]\nservices = ['cassandra']", "no service 'cassandra'; known are replica"),
        ("[fleet]\ncounts = {sentinels = 9}", "sentinels = 9; allowed are .*sentinels .0 to 5"),
        ("[fleet]\nports = 3", "no 'ports'; known are counts"),
        ("[moon]\nservices = []", "no stage"),
        ("fleet", "not TOML"),
    ],
)
def test_a_file_of_ones_own_is_read_strictly(own: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_stages(own, "own.toml")


def test_a_file_of_ones_own_changes_what_it_names() -> None:
    stage = read_stage(Stage.FLEET, (), "[fleet]\ncounts = {kafka_brokers = 1}")
    assert stage.counts == {"kafka_brokers": 1}
    assert stage.services == read_stage(Stage.FLEET, ()).services


def test_all_that_is_missing_is_named_at_once_with_what_installs_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Program, "find", lambda self: None)
    with pytest.raises(ConfigurationError) as caught:
        Yard(read_stage(Stage.FLEET, ()), data, {}, say)
    said = caught.value.message
    for one in (program.NGINX, program.PGBOUNCER, program.REDIS_SERVER, program.JAVA):
        assert f"{one.name} " in said and one.install in said
    assert "MAILYARD_REDIS_URL" in said
    assert not data.exists(), "nothing is begun"


@pytest.mark.usefixtures("installed")
def test_what_the_operator_has_himself_is_not_started(data: Path) -> None:
    given = given_settings(
        {
            "MAILYARD_REDIS_URL": "redis://mine:6379/0",
            "MAILYARD_DATABASE_URL": "postgresql://mine/mailyard",
            "MAILYARD_BLOBS": "s3://mine",
            "MAILYARD_QUEUE_ENGINE": "postgres",
        }
    )
    own = Yard(read_stage(Stage.FLEET, ()), data, given, say)
    assert not {"redis_url", "database_url", "blobs", "kafka_servers"} & own.settings.keys()
    assert not own.runs_pooler and not own.runs_kafka and own.slots == []


@pytest.mark.usefixtures("installed")
async def test_settings_of_services_are_whole_and_stand_under_the_operators(data: Path) -> None:
    ours = Yard(read_stage(Stage.FLEET, ()), data, {}, say)
    settings = load_settings(
        {"MAILYARD_DATA": str(data), "MAILYARD_API_PROCESSES": "5"}, beneath=ours.settings
    )
    assert settings.api_processes == 5
    assert settings.worker_processes == 3
    assert settings.database_pooler and settings.queue_engine == "kafka"
    assert len(settings.kafka_servers.split(",")) == 3
    assert settings.redis_url.startswith("redis+sentinel://:")
    assert settings.blobs.startswith("s3://mailyard:")
    assert ours.runs_pooler and ours.runs_kafka and ours.slots == ["mailyard_replica_1"]
    ours.stand_before(FRONT, "", {})
    kept = data / "stage/settings.toml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    commands = load_settings({"MAILYARD_DATA": str(data), "MAILYARD_CONFIG": str(kept)})
    assert replace(commands, api_processes=5) == settings
    await ours.stop()


@pytest.mark.usefixtures("installed")
async def test_each_process_behind_the_balancer_has_its_own_ports_and_believes_it(
    data: Path,
) -> None:
    ours = Yard(read_stage(Stage.SEPARATE_ROLES, ()), data, {}, say)
    children = {"api": ["api-1", "api-2"], "smtp": ["smtp-1"], "worker": ["worker-1"]}
    ours.stand_before(FRONT, "https://mail.example.org", children)
    one, other = ours.own("api-1", {}), ours.own("api-2", {})
    assert one["MAILYARD_PORT"] != other["MAILYARD_PORT"]
    assert one == ours.own("api-1", {}), "a process that comes back has the port it had"
    assert one["MAILYARD_BASE_URL"] == "https://mail.example.org"
    smtp = ours.own("smtp-1", {"MAILYARD_SMTP_BALANCERS": "10.0.0.0/8"})
    assert smtp["MAILYARD_SMTP_BALANCERS"] == "10.0.0.0/8,127.0.0.1"
    assert smtp["MAILYARD_SUBMISSIONS_PORT"] == "0", "nobody may come that way"
    assert ours.own("worker-1", {}) == {}
    await ours.stop()


def test_ports_are_kept_below_those_that_connections_get_and_the_secret_is_private(
    data: Path,
) -> None:
    place = Place(data)
    ports = {name: place.port(name) for name in ("redis-1", "redis-2", "s3")}
    assert len(set(ports.values())) == 3
    assert all(1024 < port < 32_768 for port in ports.values())
    assert stat.S_IMODE((data / "stage/secret").stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="in use by the Mailyard"):
        Place(data)
    secret = place.secret
    place.release()
    again = Place(data)
    assert {name: again.port(name) for name in ports} == ports
    assert again.secret == secret
    again.release()


def test_nginx_is_told_of_all_processes_by_every_way_that_is_open(data: Path) -> None:
    place = Place(data)
    balancer = Balancer(place, say)
    balancer.stand_before(FRONT, {"api": ["api-1", "api-2"], "smtp": ["smtp-1", "smtp-2"]})
    balancer._write()
    text = (data / "stage/nginx/nginx.conf").read_text()
    for way in WAYS[:3]:
        for name in (f"{way.role}-1", f"{way.role}-2"):
            assert f"server 127.0.0.1:{balancer.port_of(name, way)} max_fails=3" in text
    assert "listen 127.0.0.1:2587;" in text and "proxy_pass submission;" in text
    assert "upstream submissions" not in text and ":2465;" not in text
    assert "api-1:" not in text and "smtp-1:" not in text
    place.release()
