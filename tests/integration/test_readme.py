"""The README's tour with an own domain: its commands, as a reader pastes them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running_platform import free_ports, running_platform

README = Path(__file__).parents[2] / "README.md"
UNBOUND = Path("/usr/sbin/unbound")


def blocks(title: str) -> list[str]:
    """The code under a heading, block by block, without its indentation."""
    section = README.read_text("utf-8").split(f"### {title}\n")[1].split("\n#")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() for block in found]


@pytest.mark.skipif(not UNBOUND.exists() and os.environ.get("CI") != "true", reason="needs unbound")
def test_the_tour_sends_through_an_own_domain_with_checked_records(tmp_path: Path) -> None:
    start, *commands = blocks("Send as your own domain")
    *variables, make, run = start.split()
    assert (make, run) == ("make", "run")
    (dns_port,) = free_ports(1)

    def here(text: str) -> str:
        """With a port that is free, in place of the reader's."""
        return text.replace("5300", str(dns_port))

    settings = dict(here(one).removeprefix("MAILYARD_").split("=") for one in variables)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    command = tmp_path / ".venv" / "bin" / "mailyard"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mailyard.cli.main "$@"\n')
    command.chmod(0o755)
    with running_platform(
        tmp_path / "platform", **{name.lower(): value for name, value in settings.items()}
    ) as platform:
        script = here("\n".join(commands)).replace("=…", f"={platform.ready['api_key']}")
        script = "set -em\n" + script  # as in a terminal, with its jobs
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAILYARD_")}
        environment["MAILYARD_URL"] = f"http://127.0.0.1:{platform.port}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    checked = done.stdout.split("shop.test dom_")[2]
    assert ": ready; its mail is signed" in checked
    for record in ("TXT bounces.shop.test", "MX bounces.shop.test", "TXT _dmarc.shop.test"):
        assert f"good: {record}" in checked
    assert checked.count("DKIM-Signature: v=1;") == 2
    assert "d=shop.test" in checked
