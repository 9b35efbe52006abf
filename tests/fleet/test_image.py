"""The image's steps work, and what they make runs as nobody special under a read-only root."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from image_steps import (
    ROOT,
    Step,
    build,
    can_isolate,
    environment,
    exec_form,
    ignored,
    last,
    read_only,
    read_steps,
    run,
)
from running_platform import free_ports, wait_until

pytestmark = pytest.mark.timeout(600)  # a whole installation is made
STEPS = read_steps()
PINNED = re.compile(r"^[\w./-]+:[\w.-]*\d[\w.-]*( AS \w+)?$")
isolated = pytest.mark.skipif(
    not can_isolate() and os.environ.get("CI") != "true", reason="no mounts of one's own here"
)


def test_every_image_that_it_begins_with_is_pinned() -> None:
    bases = [step.rest for step in STEPS if step.word == "FROM"]
    assert len(bases) == 2 and all(map(PINNED.match, bases)), bases


def test_what_is_copied_is_there_and_not_ignored() -> None:
    names = [
        name
        for step in STEPS
        if step.word == "COPY" and not step.rest.startswith("--from")
        for name in step.rest.split()[:-1]
    ]
    assert {"src", "requirements", "pyproject.toml"} <= set(names)
    for name in names:
        assert (ROOT / name).exists() and name not in ignored(), name
    assert {".git", "data", "tests"} <= set(ignored())


def test_it_ends_as_nobody_special_with_words_and_no_shell() -> None:
    assert last(STEPS, "USER") == "10001:10001"
    order = [step.word for step in STEPS]
    assert order.index("USER") > max(n for n, word in enumerate(order) if word == "RUN")
    assert (exec_form(last(STEPS, "ENTRYPOINT")), exec_form(last(STEPS, "CMD"))) == (
        ["mailyard"],
        ["up"],
    )
    assert last(STEPS, "STOPSIGNAL") == "SIGTERM"
    final = [step for step in STEPS if step.stage == 1]
    assert [step.word for step in final].count("RUN") == 1, "a user, and nothing installed"
    assert not any(step.word == "ADD" or "curl" in step.rest for step in STEPS)


def test_every_package_is_held_to_its_hash() -> None:
    (made,) = [step for step in STEPS if step.word == "RUN" and "pip install" in step.rest]
    installs = re.findall(r"pip install ([^&]*)", made.rest)
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-deps ." in one for one in installs)


@contextmanager
def open_folder(name: str) -> Iterator[Path]:
    """One that everybody may look into: pytest keeps its own to itself."""
    folder = Path(tempfile.mkdtemp(prefix=f"mailyard-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """The program as the first stage installs it."""
    with open_folder("image") as folder:
        yield build(STEPS, folder)


def settings(data: Path, tmp: Path, program: Path) -> dict[str, str]:
    port, smtp_port = free_ports(2)
    said = environment(STEPS) | {
        "MAILYARD_DATA": str(data),
        "MAILYARD_PORT": str(port),
        "MAILYARD_SMTP_PORT": str(smtp_port),
        "MAILYARD_SUBMISSION_PORT": "0",
        "MAILYARD_SUBMISSIONS_PORT": "0",
        "MAILYARD_ALIVE_FILE": str(tmp / "alive"),
        "TMPDIR": str(tmp),
        "HOME": str(data),
    }
    said["PATH"] = f"{program / 'bin'}:/usr/bin:/bin"
    return said | {"MAILYARD_HOST": "127.0.0.1", "MAILYARD_SMTP_HOST": "127.0.0.1"}


@contextmanager
def container(
    program: Path,
) -> Iterator[tuple[subprocess.Popen[bytes], list[str], dict[str, str], Path]]:
    """`docker run --read-only --tmpfs /tmp -v …:/data mailyard`, as far as a process goes."""
    with open_folder("run") as folder:
        data, tmp = folder / "data", folder / "tmp"
        data.mkdir()
        tmp.mkdir()
        env = settings(data, tmp, program)
        inside = read_only(folder, [data, tmp])
        words = exec_form(last(STEPS, "ENTRYPOINT")) + exec_form(last(STEPS, "CMD"))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*inside, *words], env=env, cwd="/", stdout=log, stderr=log)
            try:
                yield process, inside, env, folder
            finally:
                process.kill()
                process.wait(20)


def is_ready(env: dict[str, str]) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{env['MAILYARD_PORT']}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


@isolated
def test_what_it_makes_runs_under_a_root_that_nobody_can_write_to(
    program: Path,
) -> None:
    with container(program) as (process, inside, env, folder):

        def begun() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            return is_ready(env)

        wait_until(begun, 240.0)
        refused = run([*inside, "touch", str(program / "x")], env, Path("/"))
        assert "Read-only file system" in refused.stderr
        health = exec_form(last(STEPS, "HEALTHCHECK"))
        file = environment(STEPS)["MAILYARD_ALIVE_FILE"]
        assert file in health[-1]
        looked = [*health[:-1], health[-1].replace(file, env["MAILYARD_ALIVE_FILE"])]
        assert run([*inside, *looked], env, Path("/")).returncode == 0
        os.utime(env["MAILYARD_ALIVE_FILE"], (0, 0))
        stale = run([*inside, *looked], env, Path("/"))
        assert stale.returncode != 0 or Path(env["MAILYARD_ALIVE_FILE"]).stat().st_mtime > 0
        owners = {one.stat().st_uid for one in folder.joinpath("data").rglob("*")}
        assert owners == {10001}
        process.send_signal(getattr(signal, last(STEPS, "STOPSIGNAL")))
        assert process.wait(180) == 0


def test_a_step_is_read_with_its_lines_joined(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("# a\nFROM x:1 AS b\nRUN a \\\n    && b\nFROM y:2\nENV A=1 \\\n    B=2\n")
    steps = read_steps(file)
    assert steps[1] == Step(0, "RUN", "a && b")
    assert environment(steps) == {"A": "1", "B": "2"}
