"""What comes before the roles: migrations, partitions, the connection budget, what a very first
start needs, the topics of a Kafka that is ours.

It runs in a process of its own, `python -m mailyard.cli.preparing`, that lives as long as the start
does. The supervisor lives as long as the platform and would keep for ever what this needs for a
second: some 15 MB of modules. One word a line comes in (`database`, `queue`), and JSON lines go
out: `say` for the operator, then `done`, or `failed` with whether it is a matter of configuration.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from mailyard.core.errors import ConfigurationError, MailyardError, Unavailable
from mailyard.settings import HOME, Settings, check_budget, load_settings
from mailyard.storage.unprivileged import die_with_parent

if TYPE_CHECKING:
    from mailyard.access.bootstrap import FirstStart
    from mailyard.app import Application

_LINE_BYTES = 1 << 20


class FirstAccess(NamedTuple):
    """What a very first start shows, once."""

    api_key: str
    link_token: str


class Preparation:
    """That process, as its supervisor sees it."""

    def __init__(self, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._environment = environment
        self._say = say
        self._process: asyncio.subprocess.Process | None = None

    async def spawn(self) -> None:
        """Begin: it loads what it needs while the services start."""
        parent = os.getpid()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailyard.cli.preparing"),
            env=dict(self._environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then ends it
        )

    async def database(self) -> FirstAccess | None:
        """Prepare the database. Raises ConfigurationError or Unavailable."""
        first = await self._ask("database")
        return None if first is None else FirstAccess(*first)

    async def queue(self) -> None:
        """Make the topics. Raises as `database` does."""
        await self._ask("queue")

    async def end(self) -> None:
        """It is not needed any more; what is under way is cut off and can be repeated."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    async def _ask(self, word: str) -> list[str] | None:
        process = self._process
        assert process is not None and process.stdin is not None, "spawn comes first"
        assert process.stdout is not None
        process.stdin.write(word.encode() + b"\n")
        while line := await process.stdout.readline():
            told = json.loads(line)
            if "say" in told:
                self._say(told["say"])
            elif "failed" in told:
                kind = ConfigurationError if told["configuration"] else Unavailable
                raise kind(told["failed"])
            else:
                first: list[str] | None = told["done"]
                return first
        status = await process.wait()
        raise Unavailable(f"preparing the {word} ended with status {status}; see the lines above")


def main() -> None:
    """Do what the lines of standard input ask for, one after the other."""
    import mailyard.app  # noqa: F401  what takes long to load, while PostgreSQL starts
    from mailyard.observe import log

    settings = load_settings()
    log.set_up(level=settings.log_level, form=settings.log_format, role="mailyard")

    steps = {"database": _database, "queue": _queue}
    for word in sys.stdin:
        try:
            _tell(done=asyncio.run(steps[word.strip()](settings)))
        except MailyardError as error:
            _tell(failed=error.message, configuration=isinstance(error, ConfigurationError))


def _tell(**what: object) -> None:
    """Nothing else of this process writes to standard output: its log goes where errors go."""
    print(json.dumps(what), flush=True)


async def _database(settings: Settings) -> FirstAccess | None:
    """The clusters as this version needs them; what the very first start of all has made."""
    from mailyard.app import Application
    from mailyard.storage.migrate import migrate
    from mailyard.storage.partitions import ensure_partitions
    from mailyard.storage.queries import load

    application = Application(settings)
    for name in await migrate(application.database.direct_url):
        _tell(say=f"migrated: {name}")
    await application.database.open()
    try:
        limit = await application.database.fetchval(load("process").server_limit)
        check_budget(settings, limit)
        await ensure_partitions(application.database, datetime.now(UTC))
        if settings.shards:
            await _shards(settings)
        if await application.database.fetchval(load("access").any_workspace):
            return None
        first = await _bootstrap(application)
        return None if first is None else FirstAccess(first.api_key, first.link_token)
    finally:
        await application.database.close()


async def _bootstrap(application: "Application") -> "FirstStart | None":
    from mailyard.access.bootstrap import bootstrap

    return await bootstrap(
        database=application.database,
        workspaces=application.workspaces,
        users=application.users,
        keys=application.keys,
        sessions=application.sessions,
    )


async def _shards(settings: Settings) -> None:
    """The other clusters. One that is away is prepared by `mailyard shard add`, or at the next
    start: the others serve meanwhile."""
    from mailyard.app.shards import clusters_of, prepare

    for name, cluster in clusters_of(settings).items():
        if name != HOME:
            try:
                for migration in await prepare(cluster, name):
                    _tell(say=f"migrated in {name}: {migration}")
            except Unavailable as error:
                _tell(say=f"shard {name}: {error.message}")


async def _queue(settings: Settings) -> None:
    from mailyard.app.foundation import provision_topics

    await provision_topics(settings)


if __name__ == "__main__":
    main()
