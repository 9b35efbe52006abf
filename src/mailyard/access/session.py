"""Sessions of people in browsers, and the one-time links that start them.

They live in the shared database, so that any API process serves any person. Only SHA-256 of a
token is stored: who reads the table cannot sign in. Tokens have 256 random bits, so a plain hash
is enough (a slow one protects only what can be guessed).
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import asyncpg

from mailyard.access.audit import OPERATORS, Actor, Audit
from mailyard.access.member import ANY_WORKSPACE, Members, session_tag
from mailyard.access.scope import scopes_of_role
from mailyard.cache.kind import USER
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.errors import NotAllowed, NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.names import SESSION, Names
from mailyard.storage.queries import load

_SQL = load("access")
_ACCOUNT_SQL = load("account")

SESSION_S = 14 * 24 * 3600.0
LINK_S = 24 * 3600.0
_USER_AGENT_CHARACTERS = 300
_ID = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A new session. `token` goes into the cookie and is never seen again."""

    token: str
    csrf_token: str
    workspace_id: UUID
    user_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A live session: who, where, as what. `csrf_token` must come back with every change."""

    id: str
    token_hash: bytes
    user_id: UUID
    email: str
    workspace_id: UUID
    role: str
    csrf_token: str
    user_agent: str
    created_at: datetime
    expires_at: datetime

    @property
    def actor(self) -> Actor:
        return Actor("user", self.email, self.workspace_id)

    @property
    def scopes(self) -> frozenset[str]:
        return scopes_of_role(self.role)


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session as its owner sees it in a list. `id` ends it."""

    id: str
    workspace_id: UUID
    user_agent: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionOf:
    """A session as the owners of its workspace see it."""

    id: str
    user_id: UUID
    email: str
    user_agent: str
    created_at: datetime
    expires_at: datetime


def token_hash(token: str) -> bytes:
    """What is stored of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


class Sessions:
    """Starts, finds, lists and ends sessions; makes and redeems one-time links."""

    def __init__(
        self,
        *,
        database: Database,
        audit: Audit,
        members: Members | None = None,
        cache: LayeredCache | None = None,
        names: Names | None = None,
    ) -> None:
        """`members` reads through the same `cache`. `names`: where there are several clusters."""
        self._database = database
        self._audit = audit
        self._members = members or Members(database=database, cache=cache)
        self._cache = cache
        self._names = names

    async def start(self, user_id: UUID, workspace_id: UUID, user_agent: str) -> StartedSession:
        """A new session of a person in a workspace of theirs."""
        token, csrf_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(
                _SQL.add_session,
                token_hash(token),
                user_id,
                workspace_id,
                csrf_token,
                user_agent.replace("\0", "")[:_USER_AGENT_CHARACTERS],
                SESSION_S,
                tx=tx,
            )
            assert row is not None, "an insert returns its row"
            await self._named(token_hash(token), workspace_id, tx)
            await self._audit.record(
                Actor("user", row["email"], workspace_id),
                "session.start",
                ids.type_id(ids.USER, user_id),
                None,
                {"user_agent": user_agent[:_USER_AGENT_CHARACTERS]},
                tx,
            )
        return StartedSession(token, csrf_token, workspace_id, user_id, row["expires_at"])

    async def find(self, token: str) -> Session | None:
        """The live session behind a cookie's token, with the person's present role; None once the
        membership has ended."""
        hashed = token_hash(token)
        try:
            row = await self._row(hashed)
            member = await self._members.get(row["workspace_id"], row["user_id"])
        except NotFound:
            return None
        return Session(
            id=hashed.hex(),
            token_hash=hashed,
            user_id=row["user_id"],
            email=member.email,
            workspace_id=row["workspace_id"],
            role=member.role,
            csrf_token=row["csrf_token"],
            user_agent=row["user_agent"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )

    async def _row(self, hashed: bytes) -> asyncpg.Record:
        async def read() -> asyncpg.Record:
            row = await self._database.fetchrow(_SQL.find_session, hashed)
            if row is None:
                raise NotFound("no such session")  # and so not kept: strangers fill no cache
            return row

        if self._cache is None:
            return await read()
        tag = session_tag(hashed)
        return await self._cache.get_or_make(
            USER, ANY_WORKSPACE, tag, read, [tag], ends_at=lambda row: row["expires_at"]
        )

    async def _named(self, hashed: bytes, workspace_id: UUID, tx: Connection) -> None:
        if self._names is not None:
            await self._names.note(SESSION, hashed.hex(), workspace_id, tx)

    async def _changed(self, hashed: bytes, tx: Connection) -> None:
        if self._cache is not None:
            await self._cache.change(ANY_WORKSPACE, [session_tag(hashed)], tx)

    async def list(self, user_id: UUID) -> list[SessionSummary]:
        """A person's live sessions, newest first."""
        rows = await self._database.fetch(_SQL.list_sessions, user_id)
        return [
            SessionSummary(
                row["token_hash"].hex(),
                row["workspace_id"],
                row["user_agent"],
                row["created_at"],
                row["expires_at"],
            )
            for row in rows
        ]

    async def in_workspace(
        self, workspace_id: UUID, *, after: str = "", limit: int, user_id: UUID | None = None
    ) -> Sequence[SessionOf]:
        """Live sessions that are in a workspace, by id, those behind `after`; of one person."""
        rows = await self._database.fetch(
            _SQL.sessions_in_workspace, workspace_id, after, limit, user_id
        )
        return [SessionOf(**row) for row in rows]

    async def end_in(
        self, workspace_id: UUID, session_id: str, *, actor: Actor, tx: Connection
    ) -> None:
        """End somebody's session that is in a workspace, by its id. Raises NotFound."""
        row = None
        if _ID.fullmatch(session_id):
            row = await self._database.fetchrow(
                _SQL.end_session_in_workspace, workspace_id, session_id, tx=tx
            )
        if row is None:
            raise NotFound("no such session")
        await self._changed(bytes.fromhex(session_id), tx)
        await self._ended(row, tx, actor)

    async def end(self, token: str) -> None:
        """Sign out: the session of this token is no more. Unknown tokens are ignored."""
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(_SQL.end_session, token_hash(token), tx=tx)
            if row is not None:
                await self._changed(token_hash(token), tx)
                await self._ended(row, tx)

    async def end_one(self, user_id: UUID, session_id: str) -> None:
        """End one of a person's own sessions, by the id of the list. Raises NotFound."""
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(
                _SQL.end_session_of_user, user_id, session_id, tx=tx
            )
            if row is None:
                raise NotFound("no such session")
            await self._changed(bytes.fromhex(session_id), tx)
            await self._ended(row, tx)

    async def _ended(self, row: asyncpg.Record, tx: Connection, actor: Actor | None = None) -> None:
        await self._audit.record(
            actor or Actor("user", row["email"], row["workspace_id"]),
            "session.end",
            ids.type_id(ids.USER, row["user_id"]),
            {"user_agent": row["user_agent"], "started_at": row["created_at"]},
            None,
            tx,
        )

    async def end_others(self, user_id: UUID, keep: bytes, *, actor: Actor) -> None:
        """End all sessions of a person but the one with the token hash `keep`."""
        async with self._database.transaction() as tx:
            ended = await self._database.fetch(_SQL.end_other_sessions, user_id, keep, tx=tx)
            await self._members.sessions_ended(ended, tx)
            name = ids.type_id(ids.USER, user_id)
            await self._audit.record(actor, "session.end_others", name, None, None, tx)

    async def move(self, token: str, workspace_id: UUID) -> None:
        """Go on in another workspace of the same person. Raises NotFound when it is not theirs."""
        await self.move_hashed(token_hash(token), workspace_id)

    async def move_hashed(self, hashed: bytes, workspace_id: UUID) -> None:
        """As `move`, by the token's hash."""
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(_SQL.move_session, hashed, workspace_id, tx=tx)
            if row is None:
                raise NotFound("no such workspace")
            await self._named(hashed, workspace_id, tx)
            await self._changed(hashed, tx)
            await self._audit.record(
                Actor("user", row["email"], workspace_id),
                "session.move",
                ids.type_id(ids.USER, row["user_id"]),
                {"workspace": ids.type_id(ids.WORKSPACE, row["workspace_before"])},
                {"workspace": ids.type_id(ids.WORKSPACE, workspace_id)},
                tx,
            )

    async def create_link(
        self, user_id: UUID, *, actor: Actor, lasts_s: float = LINK_S, tx: Connection | None = None
    ) -> str:
        """A token that signs the person in once, within `lasts_s` seconds.

        Raises NotAllowed for a person who belongs to another workspace too: the link would open
        that one as well. The operator of the installation can make it.
        """
        if tx is None:
            async with self._database.transaction() as own:
                return await self.create_link(user_id, actor=actor, lasts_s=lasts_s, tx=own)
        if actor.kind not in OPERATORS and await self._database.fetchval(
            _SQL.belongs_elsewhere, user_id, actor.workspace_id, tx=tx
        ):
            raise NotAllowed("this person belongs to another workspace too")
        if actor.kind not in OPERATORS:
            # Whoever gets the link may not be who reads the mail of the person's address.
            await self._database.execute(_ACCOUNT_SQL.doubt_person, user_id, tx=tx)
        token = secrets.token_urlsafe(32)
        await self._database.execute(
            _SQL.add_login_link, token_hash(token), user_id, lasts_s, tx=tx
        )
        await self._audit.record(
            actor,
            "user.create_link",
            ids.type_id(ids.USER, user_id),
            None,
            {"lasts_s": lasts_s},
            tx,
        )
        return token

    async def redeem_link(self, token: str) -> UUID | None:
        """The person whom the link signs in: the first time and in time; None otherwise."""
        user_id: UUID | None = await self._database.fetchval(_SQL.use_login_link, token_hash(token))
        return user_id

    async def sweep(self) -> int:
        """Remove ended sessions and spent links (a duty of the scheduler). How many."""
        count: int = await self._database.fetchval(_SQL.sweep_sessions)
        return count
