"""Steering between regions with real balancers: the nearest one, and the other when it is away."""

import http.client
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from balancers import DEPLOY, HAPROXY, NGINX, listens
from running_platform import free_ports, wait_until

IS_INSTALLED = NGINX.exists() and HAPROXY.exists()
pytestmark = pytest.mark.skipif(
    not IS_INSTALLED and os.environ.get("CI") != "true",
    reason="nginx or HAProxy is missing: tests/services/install_balancers.sh",
)
NEAR_US = "127.0.0.8"


@contextmanager
def region(name: str) -> Iterator[ThreadingHTTPServer]:
    """A server that says which region it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def answered(port: int, source: str = "127.0.0.1") -> str:
    """The region that a client at `source` comes to."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=10, source_address=(source, 0)
    )
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else ""
    except (http.client.HTTPException, OSError):
        return ""
    finally:
        connection.close()


def haproxy(ports: dict[str, int], port: int, folder: Path) -> list[str]:
    (folder / "regions.map").write_text(f"{NEAR_US}/32 us\n")
    text = (DEPLOY / "regions/haproxy.cfg").read_text()
    text = text.replace("/etc/haproxy/regions.map", str(folder / "regions.map"))
    text = text.replace("bind :443", f"bind 127.0.0.1:{port}").replace("inter 5s", "inter 200ms")
    for name, at in ports.items():
        text = text.replace(f"{name}-balancer:443", f"127.0.0.1:{at}")
    (folder / "haproxy.cfg").write_text(text)
    return [str(HAPROXY), "-db", "-f", str(folder / "haproxy.cfg")]


def nginx(ports: dict[str, int], port: int, folder: Path) -> list[str]:
    text = (DEPLOY / "regions/nginx.conf").read_text()
    text = text.replace("listen 443;", f"listen 127.0.0.1:{port};")
    text = text.replace("203.0.113.0/24 us;", f"{NEAR_US}/32 us;")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    kept = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    text = text.replace("http {", f"http {{ access_log off; {kept}", 1)
    for name, at in ports.items():
        text = text.replace(f"{name}-balancer:443", f"127.0.0.1:{at}")
    (folder / "nginx.conf").write_text(text)
    quiet = f"daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;"
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", quiet]


@pytest.mark.parametrize("command", [haproxy, nginx])
def test_who_asks_comes_to_the_nearest_region_that_works(
    command: Callable[[dict[str, int], int, Path], list[str]], tmp_path: Path
) -> None:
    with ExitStack() as eu_only, region("eu") as eu:
        us = eu_only.enter_context(region("us"))
        (port,) = free_ports(1)
        ports = {"eu": eu.server_address[1], "us": us.server_address[1]}
        balancer = subprocess.Popen(command(ports, port, tmp_path))
        try:
            wait_until(lambda: listens(port))
            wait_until(lambda: answered(port, NEAR_US) == "us")
            assert answered(port) == "eu"
            eu_only.close()
            wait_until(lambda: answered(port, NEAR_US) == "eu")
            assert answered(port) == "eu"
        finally:
            balancer.terminate()
            balancer.wait(20)
