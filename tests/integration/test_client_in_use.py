"""The client, the pytest plugin and their page, used as a newcomer uses them: in an empty
environment outside the repository, against a platform that `mailyard up` started."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_platform import Platform, running_platform

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(
        tmp_path_factory.mktemp("client") / "data", submission_port="0", submissions_port="0"
    ) as platform:
        yield platform


def blocks(page: str) -> list[str]:
    """The commands of a page, block by block, without their indentation."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    found = re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() for block in found]


def run(platform: Platform, home: Path, script: str) -> str:
    """What the commands print, as a reader pastes them, with `home` as the home folder."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAILYARD_", "PYTHON", "PYTEST", "VIRTUAL_ENV"))
    }
    path = f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=home,
        env=environment
        | {"HOME": str(home), "SMTP_PORT": str(platform.smtp_port), "PATH": path}
        | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_CACHE_DIR": _pip_cache()},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _pip_cache() -> str:
    return os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))


def test_a_newcomer_follows_the_page_on_test_suites(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "mailyard").symlink_to(ROOT)
    commands = blocks("TESTING.md")
    where, *others = commands
    settings = where.replace("http://127.0.0.1:8025", platform.ready["page"])
    settings = settings.replace("=…", f"={platform.ready['api_key']}")
    printed = run(platform, tmp_path, "\n".join([settings, *others]))
    assert "1 passed" in printed
    assert printed.endswith(
        "It works.\nPong!\nno mail with 'nothing' in its subject came to "
        + printed.rpartition(" came to ")[2]
    )
    assert "there: 'Re: Ping' from " in printed
    packages = tmp_path / "shop-tests" / ".venv" / "lib"
    (installed,) = packages.glob("python*/site-packages")
    assert not (installed / "msgspec").exists(), "the client needs nothing of the server's"
    test = (tmp_path / "shop-tests" / "test_sign_up.py").read_text()
    assert len(test.splitlines()) < 20
    shutil.rmtree(tmp_path / "shop-tests")
