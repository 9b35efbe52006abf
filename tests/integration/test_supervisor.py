"""`mailyard up` with real processes: start, stop, every kind of death, faults of a start."""

import json
import os
import re
import signal
import smtplib
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from running_platform import (
    Platform,
    await_ready,
    begin,
    free_ports,
    lives,
    running_platform,
    wait_until,
)

from mailyard.access.master_key import new_master_key
from mailyard.cli import exit_code
from mailyard.core.limits import LEASE_S


def call(platform: Platform, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{platform.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {platform.ready['api_key']}",
            "content-type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def healthy(platform: Platform) -> bool:
    try:
        return bool(call(platform, "/health/ready")["status"] == "ready")
    except OSError:
        return False


def send_mail(platform: Platform, recipient: str, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", platform.smtp_port, timeout=30) as client:
        client.sendmail(
            "a@example.org",
            [recipient],
            f"From: a@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n",
        )


def make_inbox(platform: Platform) -> dict[str, Any]:
    made = call(platform, "/v1/inboxes", {"ttl_s": 3600})
    return made["items"][0] if "items" in made else made


def subjects(platform: Platform, inbox: dict[str, Any]) -> list[str]:
    page = call(platform, f"/v1/inboxes/{inbox['id']}/messages")
    return sorted(message["subject"] for message in page["items"])


def submit(platform: Platform, recipient: str, subject: str) -> None:
    """As an application does that knows a host and a password."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = platform.ready["submissions"]
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=context) as client:
        client.login("app", platform.ready["api_key"])
        mail = f"From: a@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n"
        client.sendmail("a@example.org", [recipient], mail)


def test_a_second_start_goes_on_with_the_same_data(tmp_path: Path) -> None:
    (tls_port,) = free_ports(1)
    with running_platform(
        tmp_path / "data", submission_port="0", submissions_port=str(tls_port)
    ) as platform:
        assert platform.ready["api_key"].startswith("my_")
        assert platform.ready["sign_in"].startswith(f"http://127.0.0.1:{platform.port}/sign-in/")
        key = platform.ready["api_key"]
        inbox = make_inbox(platform)
        assert (platform.ready["submission"], platform.ready["submissions"]) == (None, tls_port)
        submit(platform, inbox["address"], "one")
        wait_until(lambda: subjects(platform, inbox) == ["one"])
        everyone = platform.pids
        assert platform.stop(signal.SIGINT) == 0
        assert not [pid for pid in everyone if lives(pid)]
    with running_platform(tmp_path / "data") as platform:
        assert platform.ready["api_key"] is None and platform.ready["sign_in"] is None
        platform.ready["api_key"] = key
        assert subjects(platform, inbox) == ["one"]
        send_mail(platform, inbox["address"], "two")
        wait_until(lambda: subjects(platform, inbox) == ["one", "two"])
        assert platform.stop() == 0


def test_killed_roles_and_a_killed_database_come_back(tmp_path: Path) -> None:
    with running_platform(tmp_path / "data") as platform:
        inbox = make_inbox(platform)
        for role in ("smtp", "api", "worker", "scheduler", "postgres"):
            before = platform.pids_of(role)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda role=role, before=before: (
                    len(found := platform.pids_of(role)) == len(before)
                    and not set(found) & set(before)
                )
            )
        wait_until(lambda: healthy(platform))

        def accepted() -> bool:
            try:
                send_mail(platform, inbox["address"], "after")
            except (OSError, smtplib.SMTPException):
                return False
            return True

        wait_until(accepted)
        wait_until(lambda: "after" in subjects(platform, inbox))
        assert platform.stop() == 0


def test_a_killed_supervisor_takes_everything_along_and_the_next_start_repairs(
    tmp_path: Path,
) -> None:
    with running_platform(tmp_path / "data") as platform:
        key, inbox = platform.ready["api_key"], make_inbox(platform)
        send_mail(platform, inbox["address"], "before")
        everyone = platform.pids
        assert len(everyone) > 8  # four roles, the postmaster and its processes
        platform.process.kill()
        platform.process.wait()
        wait_until(lambda: not [pid for pid in everyone if lives(pid)], patience_s=2.0)
    with running_platform(tmp_path / "data") as platform:
        platform.ready["api_key"] = key
        # A worker may have died with the mail in its hands: then its lease runs out first.
        wait_until(lambda: subjects(platform, inbox) == ["before"], patience_s=2 * LEASE_S)
        assert platform.stop() == 0


def test_orphans_that_did_not_hear_of_the_death_are_ended_by_the_next_start(tmp_path: Path) -> None:
    with running_platform(tmp_path / "data") as platform:
        (postmaster,) = platform.pids_of("postgres")
        os.kill(postmaster, signal.SIGSTOP)
        platform.process.kill()
        platform.process.wait()
    assert lives(postmaster)
    with running_platform(tmp_path / "data") as platform:
        assert not lives(postmaster)
        assert platform.stop() == 0


def failure(platform: Platform) -> tuple[int, str]:
    status = platform.process.wait(timeout=60)
    return status, platform.log.read_text()


def test_a_folder_in_use_is_refused_by_name_and_the_holder_goes_on(tmp_path: Path) -> None:
    with running_platform(tmp_path / "data") as platform:
        status, log = failure(begin(tmp_path / "data"))
        assert status == 78
        assert f"in use by the Mailyard with process id {platform.process.pid}" in log
        assert healthy(platform)


@pytest.mark.parametrize("setting", ["port", "smtp_port", "submission_port"])
def test_a_port_that_is_taken_is_refused_with_its_setting(tmp_path: Path, setting: str) -> None:
    (port,) = free_ports(1)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # sharing must not be joined
        other.bind(("127.0.0.1", port))
        other.listen()
        status, log = failure(begin(tmp_path / "data", **{setting: str(port)}))
    assert status == 78
    assert f"cannot listen on 127.0.0.1:{port}" in log and f"MAILYARD_{setting.upper()}" in log


def test_a_role_that_grows_past_its_memory_is_replaced(tmp_path: Path) -> None:
    with running_platform(tmp_path / "data", worker_memory="20MB") as platform:
        first, *_ = platform.pids_of("worker")
        wait_until(lambda: not lives(first))
        assert "more than the 20 it may: replaced" in platform.log.read_text()
        assert healthy(platform)


def test_a_stop_in_the_middle_of_the_start_leaves_nothing(tmp_path: Path) -> None:
    platform = begin(tmp_path / "data")
    wait_until(lambda: len(platform.pids) >= 3)
    everyone = platform.pids
    assert platform.stop() in (0, -signal.SIGTERM)
    assert not [pid for pid in everyone if lives(pid)]
    with running_platform(tmp_path / "data") as again:
        assert healthy(again)


def test_what_hangs_is_killed_when_the_drain_is_over(tmp_path: Path) -> None:
    with running_platform(tmp_path / "data", drain_s="1") as platform:
        worker = platform.pids_of("worker")[0]
        os.kill(worker, signal.SIGSTOP)
        started = time.monotonic()
        assert platform.stop() == 0
        assert time.monotonic() - started < 30
        assert not lives(worker)
        assert re.search(r"worker-\d     did not drain in time: killed", platform.log.read_text())


def test_roles_alone_share_a_database_that_was_migrated(tmp_path: Path, database_url: str) -> None:
    shared = {"database_url": database_url, "master_key": new_master_key()}
    with running_platform(tmp_path / "data", **shared) as platform:
        assert not platform.pids_of("postgres")
        assert not (tmp_path / "data" / "postgres").exists()
        inbox = make_inbox(platform)
        send_mail(platform, inbox["address"], "external")
        wait_until(lambda: subjects(platform, inbox) == ["external"])
        more = {"api_processes": "0", "smtp_processes": "0"}
        again = await_ready(begin(tmp_path / "more", **shared, **more))
        assert again.stop() == 0
        stranger = {**shared, "master_key": new_master_key()}
        status, log = failure(begin(tmp_path / "stranger", **stranger, **more))
        assert status == exit_code.CONFIGURATION
        assert "set MAILYARD_MASTER_KEY to the one that the other machines have" in log
        assert platform.stop() == 0


def test_settings_are_read_again_without_a_restart(tmp_path: Path) -> None:
    """SIGHUP: what is safe is in force at once in every process, the rest is named."""
    config = tmp_path / "mailyard.toml"
    config.write_text("rate_per_s = 1000.0\nrate_burst = 1000\n")
    with running_platform(tmp_path / "data", config=str(config)) as platform:
        before = platform.pids_of("api") + platform.pids_of("smtp")
        assert {call(platform, "/v1/stats") is None for _ in range(5)} == {False}
        config.write_text("rate_per_s = 0.01\nrate_burst = 1\nworker_processes = 3\n")
        platform.process.send_signal(signal.SIGHUP)

        def refused() -> bool:
            try:
                call(platform, "/v1/stats")
            except urllib.error.HTTPError as error:
                return error.code == 429
            return False

        wait_until(refused)
        said = platform.log.read_text()
        assert "in force now: rate_per_s, rate_burst; need a restart: worker_processes" in said
        config.write_text("rate_per_s = 'fast'\n")
        platform.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the settings stay as they are" in platform.log.read_text())
        assert healthy(platform)
        assert platform.pids_of("api") + platform.pids_of("smtp") == before
