"""`mailyard doctor` and the other small commands, as a person runs them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import with_database
from running_platform import free_ports, running_platform

from mailyard.fleet.checkup.finding import Grade
from mailyard.fleet.checkup.machine import check_data


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAILYARD_")
    }
    environment |= {f"MAILYARD_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "mailyard.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def examine(tmp_path: Path, **settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
    port, smtp_port = free_ports(2)
    defaults = {"data": str(tmp_path / "data"), "port": str(port), "smtp_port": str(smtp_port)}
    done = run("doctor", "--json", **{**defaults, **settings})
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["check"]: finding for finding in findings}


def test_a_fit_machine_is_told_so(tmp_path: Path) -> None:
    status, findings = examine(tmp_path)
    assert status == 0
    assert {"settings", "data folder", "HTTP port", "embedded PostgreSQL"} <= set(findings)
    assert all(finding["grade"] != "bad" for finding in findings.values())


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    status, findings = examine(tmp_path, prot="80")
    assert status == 78
    assert "did you mean MAILYARD_PORT?" in findings["settings"]["found"]


def test_a_mistake_in_a_file_of_own_delivery_is_named_with_its_line(tmp_path: Path) -> None:
    shaping, sources = tmp_path / "shaping.toml", tmp_path / "sources.toml"
    shaping.write_text('[receiver.google]\nrate = "fast"\n')
    sources.write_text('[pool.default]\n[[pool.default.address]]\nipv4 = "127.0.0.1"\n')
    status, findings = examine(tmp_path, shaping_file=str(shaping), sources_file=str(sources))
    assert status == 78
    assert f"{shaping}, line 2: receiver.google.rate is 'fast'" in findings["shaping file"]["found"]
    assert findings["sources file"]["found"] == "pools: default"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, findings = examine(tmp_path, port=str(other.getsockname()[1]))
    assert status == 78
    assert "set MAILYARD_PORT to a free port" in findings["HTTP port"]["found"]


def test_a_data_folder_that_cannot_be_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    found, *_ = check_data(tmp_path / "file" / "data")
    assert (found.grade, found.fix) == (Grade.BAD, "name a folder in MAILYARD_DATA")
    exists = Path.exists

    def hidden(place: Path) -> bool:
        if "hidden" in place.parts:
            raise PermissionError(13, "Permission denied", str(place))
        return exists(place)

    monkeypatch.setattr(Path, "exists", hidden)
    found, *_ = check_data(tmp_path / "hidden" / "data")
    assert found.check == "data folder"


def test_a_database_that_is_away_is_named(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    status, findings = examine(tmp_path, database_url=f"postgresql://x@127.0.0.1:{port}/x")
    assert status == 78
    assert findings["database"]["grade"] == "bad"
    assert "MAILYARD_DATABASE_URL" in findings["database"]["fix"]


async def test_a_migrated_database_is_examined(tmp_path: Path, database_url: str) -> None:
    status, findings = examine(tmp_path, database_url=database_url)
    assert findings["schema"]["found"] == "up to date"
    assert findings["database"]["grade"] == "good" and findings["clock"]["grade"] == "good"
    assert status == (78 if "durability" in findings else 0)  # a test server may run without fsync


def test_a_database_that_lacks_migrations_is_told_what_to_do(
    tmp_path: Path, server_url: str
) -> None:
    _, findings = examine(tmp_path, database_url=with_database(server_url, "postgres"))
    assert findings["schema"]["fix"] == "mailyard migrate"


def test_data_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    (tmp_path / "data" / "postgres" / "PG_VERSION").write_text("12\n")
    status, findings = examine(tmp_path)
    assert status == 78
    assert "made by PostgreSQL 12" in findings["embedded PostgreSQL"]["found"]


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    status, findings = examine(tmp_path, tls_cert="/nowhere.pem", tls_key="/nowhere.pem")
    assert status == 78
    assert "PEM files that belong together" in findings["certificate"]["fix"]


def test_the_checklist_of_a_stage_judges_what_runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tmp_path = tmp_path_factory.mktemp("stage")  # short: a socket's path has 107 characters
    with running_platform(tmp_path / "data") as platform:
        environment = {
            "data": str(platform.data),
            "port": str(platform.port),
            "smtp_port": str(platform.smtp_port),
            "api_key": platform.ready["api_key"],
        }
        demo = run("demo", "--recipients", "20", "--json", **environment)
        assert demo.returncode == 0, demo.stderr
        first = run("doctor", "--json", "--for", "1", **environment)
        second = run("doctor", "--json", "--for", "separate-roles", **environment)
        shown = run("doctor", "--for", "1", **environment)
    one, two = (
        {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
        for done in (first, second)
    )
    assert first.returncode == 0, first.stdout
    assert one["load test"]["grade"] == "warn" and "20 recipients" in one["load test"]["found"]
    assert one["monitoring"]["grade"] == "good" and one["CDN headers"]["grade"] == "good"
    assert "stage 1 (one-server), with " in shown.stdout
    assert "pooling" not in one and "master key" not in one
    assert second.returncode == 78
    failed = {check for check, finding in two.items() if finding["grade"] == "bad"}
    assert {"pooling", "backup", "alerts", "HTTPS", "DNS", "two of each role"} <= failed
    assert all(finding["fix"] for finding in two.values() if finding["grade"] != "good")


def test_a_stage_that_there_is_not_is_told_with_those_that_are() -> None:
    done = run("doctor", "--for", "9")
    assert done.returncode != 0 and "4 (regions)" in done.stdout + done.stderr


def test_every_setting_is_listed() -> None:
    rows = json.loads(run("doctor", "--settings", "--json").stdout)
    assert {"MAILYARD_PORT", "MAILYARD_DATA"} <= {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "Usage: mailyard COMMAND"),
        (("--help",), 0, "Exit codes: 0 done"),
        (("up", "--help"), 0, "Example: "),
        (("verson",), 2, "Did you mean 'version'?"),
        (("up", "--nonsense"), 2, "No such option"),
        (("version",), 0, "mailyard 0."),
        (("--version",), 0, "mailyard 0."),
    ],
)
def test_commands_answer_with_their_codes(
    arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_a_role_alone_needs_a_migrated_database(server_url: str) -> None:
    done = run("worker", database_url=with_database(server_url, "postgres"))
    assert done.returncode == 78
    assert "run `mailyard migrate` first" in done.stderr


async def test_migrate_says_what_it_did(database_url: str) -> None:
    done = run("migrate", "--check", "--json", database_url=database_url)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"pending": []})
    done = run("migrate", database_url=database_url)
    assert (done.returncode, done.stdout) == (0, "nothing to do\n")
