"""Templates ready to render: compiled once a process, and which version is in use.

A version never changes, so its compiled form is kept for a day, and the sources of the one in use
as long in the cache that all processes share (`email:template:{name}`). Which version that is is
believed for less than a second, and not at all once the bus has said that something was published:
one small query a template and second, however many mails it makes, and no cache can be wrong.
"""

from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

import msgspec

from mailyard.bus.bus import Bus
from mailyard.cache.cache import Cache
from mailyard.cache.count import count, hits_of
from mailyard.cache.kind import STATIC
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.sending.build.source import EMAIL
from mailyard.sending.position import Origin
from mailyard.sending.render import Compiled
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("template")

TOPIC = "template"
BELIEVED_S = 0.9  # a new version is used within a second even when the bus says nothing
KEPT_S = 24 * 3600.0
_COMPILED = 256  # versions that one process keeps compiled
_IN_USE = 4_096

CACHE_KEY = "email:template:{}"  # the template's name: the kind of mail that it makes

_hit = hits_of(STATIC, "process")
_decode_origins = msgspec.json.Decoder(dict[str, list[Origin]]).decode


class InUse(NamedTuple):
    """Which version of a template is in use, as of `at` (monotonic seconds)."""

    id: UUID
    name: str
    kind: str
    version: int
    locale: str
    at: float


class Sources(msgspec.Struct, frozen=True, array_like=True):
    """What a version is compiled from, as it is shared between processes."""

    id: UUID
    version: int
    subject: str
    html: str
    text: str
    origins: str | None


_encode = msgspec.msgpack.encode
_decode_sources = msgspec.msgpack.Decoder(Sources).decode


_Key = tuple[UUID, UUID, int, str]  # workspace, template, version, locale


class Ready:
    """Gives compiled templates. Without a bus, another process's new version takes BELIEVED_S."""

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus | None = None,
        cache: Cache | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._cache = cache
        self._bus = bus
        self._clock = clock or SystemClock()
        self._news = bus.subscribe(TOPIC) if bus is not None else None
        self._in_use: OrderedDict[tuple[UUID, UUID | str], InUse] = OrderedDict()
        self._compiled: OrderedDict[tuple[UUID, UUID, int, str], tuple[Compiled, float]] = (
            OrderedDict()
        )

    def announce(self) -> None:
        """Another version is in use, says this process."""
        self._in_use.clear()
        if self._bus is not None:
            self._bus.announce(TOPIC)

    async def get(
        self,
        workspace_id: UUID,
        template: UUID | str,
        version: int | None = None,
        *,
        tx: Connection | None = None,
    ) -> Compiled:
        """A version ready to render; the one in use when none is named. Raises NotFound, and
        InvalidInput for a layout or a block."""
        in_use = await self.in_use(workspace_id, template, tx=tx)
        if in_use.kind != EMAIL:
            raise InvalidInput(f"it is a {in_use.kind}, not an email", field="template")
        version = version or in_use.version
        if version == 0:
            raise NotFound("no version of this template is published", field="template")
        key = (workspace_id, in_use.id, version, in_use.locale)
        found = self._compiled.get(key)
        if found is not None and self._clock.monotonic() - found[1] < KEPT_S:
            _hit()
            self._compiled.move_to_end(key)
            return found[0]
        count(STATIC, "process", hit=False)
        sources = await self._sources(workspace_id, in_use, version, tx)
        origins = _decode_origins(sources.origins) if sources.origins else {}
        compiled = Compiled(sources.subject, sources.html, sources.text, origins, in_use.locale)
        self._compiled[key] = (compiled, self._clock.monotonic())
        self._compiled.move_to_end(key)
        while len(self._compiled) > _COMPILED:
            self._compiled.popitem(last=False)
        return compiled

    async def in_use(
        self, workspace_id: UUID, template: UUID | str, *, tx: Connection | None = None
    ) -> InUse:
        """Which version of a template is in use. Raises NotFound."""
        if self._news is not None and self._news.heard():
            self._in_use.clear()
        key = (workspace_id, template)
        now = self._clock.monotonic()
        found = self._in_use.get(key)
        if found is not None and now - found.at < BELIEVED_S and tx is None:
            return found
        query = _SQL.published_by_name if isinstance(template, str) else _SQL.published_by_id
        row = await self._database.fetchrow(query, workspace_id, template, tx=tx)
        if row is None:
            self._in_use.pop(key, None)
            raise NotFound("there is no such template", field="template")
        fresh = InUse(**row, at=now)
        if tx is None:  # what a transaction sees may never come to be
            self._in_use[key] = fresh
            self._in_use.move_to_end(key)
            while len(self._in_use) > _IN_USE:
                self._in_use.popitem(last=False)
        return fresh

    async def _sources(
        self, workspace_id: UUID, in_use: InUse, version: int, tx: Connection | None
    ) -> Sources:
        """What a version is compiled from: of the one in use, as all processes share it."""
        shared = self._cache if version == in_use.version and tx is None else None
        key = CACHE_KEY.format(in_use.name)
        if shared is not None:
            found = (await shared.get(workspace_id, [key])).get(key)
            if found is not None:
                sources = _decode_sources(found)
                if (sources.id, sources.version) == (in_use.id, version):
                    count(STATIC, "shared", hit=True)
                    return sources
            count(STATIC, "shared", hit=False)
        row = await self._database.fetchrow(_SQL.get_built, workspace_id, in_use.id, version, tx=tx)
        if row is None:
            raise NotFound("there is no such template or version")
        sources = Sources(in_use.id, version, *row)
        if shared is not None:
            await shared.put(workspace_id, {key: _encode(sources)}, KEPT_S)
        return sources
