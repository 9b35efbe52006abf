"""A Postfix of a test's own, on a free port of this machine; nothing of it leaves it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailyard.proving.own_platform import free_port

POSTFIX = Path("/usr/sbin/postfix")
as_root = pytest.mark.skipif(
    (not POSTFIX.exists() or os.geteuid() != 0) and os.environ.get("CI") != "true",
    reason="Postfix runs as root only",
)

MAIN = """compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
relay_domains = inbox.test
transport_maps = inline:{{ {{ inbox.test = smtp:[127.0.0.1]:{next_port} }} }}
default_transport = error:nothing leaves this machine
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{ no@inbox.test = REJECT unknown }} }},
    permit_mynetworks, reject
smtp_address_preference = ipv4
{more}
"""
MASTER = """127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@contextmanager
def running_postfix(next_port: int, more: str = "") -> Iterator[int]:
    """Its port. It passes mail for inbox.test on to `next_port`; `more`: further lines of
    main.cf."""
    folder = Path(tempfile.mkdtemp(prefix="mailyard-postfix-"))
    folder.chmod(0o755)
    (folder / "spool").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    port = free_port()
    main = MAIN.format(folder=folder, next_port=next_port, more=more)
    (folder / "main.cf").write_text(main)
    (folder / "master.cf").write_text(MASTER.format(port=port))
    command = [str(POSTFIX), "-c", str(folder)]
    subprocess.run([*command, "start"], check=True, capture_output=True)
    try:
        yield port
    except BaseException:
        print((folder / "mail.log").read_text())
        raise
    finally:
        subprocess.run([*command, "abort"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
