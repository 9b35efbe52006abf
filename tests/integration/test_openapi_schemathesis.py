"""schemathesis against the served OpenAPI: no 5xx, and no answer that is not in the document.

A short run; MAILYARD_SCHEMATHESIS_EXAMPLES=500 makes it a long one.
"""

import asyncio
import os
import re
import sys

import pytest
from api_platform import start

from mailyard.storage.database import Database
from mailyard.web.serve import HttpServer

_CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "ignored_auth",
        "unsupported_method",
    )
)
# Endless by nature: an event stream, and a wait of up to two minutes. Their own tests see to them.
_ENDLESS = ("/v1/events", "/v1/inboxes/{inbox_id}/wait")


@pytest.mark.timeout(1800)
async def test_no_server_error_and_no_undocumented_answer(database: Database) -> None:
    examples = int(os.environ.get("MAILYARD_SCHEMATHESIS_EXAMPLES", "6"))
    platform = await start(database)
    server = HttpServer(platform.asgi, host="127.0.0.1", port=0, drain_s=1.0)
    await server.start()
    try:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"http://127.0.0.1:{server.port}/v1/openapi.json",
            *("--header", f"Authorization: Bearer {platform.key}"),
            *("--checks", _CHECKS, "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(examples), "--seed", "20260101"),
            *("--request-timeout", "20", "--generation-database", "none"),
            *(argument for path in _ENDLESS for argument in ("--exclude-path", path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await running.communicate()
    finally:
        await server.stop()
        await platform.close()
    readable = re.sub(r"(.)\1{100,}", r"\1…", output.decode())
    assert running.returncode == 0, readable[-20_000:]
