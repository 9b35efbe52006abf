"""People: accounts with argon2id passwords, and their membership in workspaces.

A person is known by an address and may belong to several workspaces, with a role in each: owner
(everything), member (everything but access itself), viewer (reads).
"""

import asyncio
from uuid import UUID

import asyncpg
from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError

from mailyard.access.audit import OPERATORS, Actor, Audit
from mailyard.access.member import Members, User
from mailyard.access.scope import OWNER, check_role
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import normalise
from mailyard.storage.database import Connection, Database
from mailyard.storage.names import Names
from mailyard.storage.queries import load

_SQL = load("access")
_ACCOUNT_SQL = load("account")

PASSWORD_CHARACTERS_MIN = 10  # NIST SP 800-63B section 3.1.1: length, not composition
PASSWORD_CHARACTERS_MAX = 256
_NOBODY = UUID(int=0)

# RFC 9106 section 4, second recommended option (64 MiB), with one lane because we hash in threads.
_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1, type=Type.ID)
# Hashes at once in one process: 64 MiB each, so that sign-ins cannot take the machine's memory.
_HASHES_AT_ONCE = 2


def check_password(password: str) -> str:
    """The password, if it is long enough. Raises InvalidInput."""
    if not PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX:
        raise InvalidInput(
            f"a password has {PASSWORD_CHARACTERS_MIN} to {PASSWORD_CHARACTERS_MAX} characters",
            field="password",
        )
    return password


class Users:
    """Accounts, passwords and memberships."""

    def __init__(
        self,
        *,
        database: Database,
        audit: Audit,
        members: Members | None = None,
        names: Names | None = None,
    ) -> None:
        """`names`: where there are several database clusters."""
        self._names = names
        self._database = database
        self._audit = audit
        self._members = members or Members(database=database)
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._decoy: str | None = None

    async def add(
        self,
        workspace_id: UUID,
        email: str,
        role: str,
        *,
        actor: Actor,
        tx: Connection | None = None,
    ) -> User:
        """Make the person of this address a member. Raises Conflict when they are one already.

        Nobody can set another's password: a new person comes in by a one-time link
        (`Sessions.create_link`) and may set one then.

        An address proves nothing about who holds the account, so a workspace's owner cannot add a
        person of another workspace (whoever made that account could come in): Conflict. The
        operator of the installation can (a `command` actor). Every way in that an account had
        before is forgotten, also when it belongs nowhere by now: its maker may have left it so.
        """
        if tx is None:
            async with self._database.transaction() as own:
                return await self.add(workspace_id, email, role, actor=actor, tx=own)
        email = normalise(email)
        role = check_role(role)
        row, elsewhere = await self._account(workspace_id, email, tx)
        if actor.kind not in OPERATORS and (
            elsewhere
            or await self._database.fetchval(_SQL.belongs_elsewhere, row["id"], workspace_id, tx=tx)
        ):
            raise Conflict("this person belongs to another workspace", field="email")
        since = await self._database.fetchval(_SQL.add_member, workspace_id, row["id"], role, tx=tx)
        if since is None:
            raise Conflict(f"{email} is a member already", field="email")
        await self._members.changed([workspace_id], tx)
        await self._forget_ways_in(row["id"], tx)
        await self._database.execute(_ACCOUNT_SQL.doubt_person, row["id"], tx=tx)
        await self._audit.record(
            actor,
            "user.add",
            ids.type_id(ids.USER, row["id"]),
            None,
            {"email": email, "role": role},
            tx,
        )
        return User(row["id"], email, role, False, since)

    async def join(
        self, workspace_id: UUID, email: str, role: str, *, actor: Actor, tx: Connection
    ) -> UUID:
        """Make the person of this address a member: they followed a link that was mailed there.

        Every way in that an account had whose holder is not known to read that mail is forgotten.
        Who is a member already stays what they are.
        """
        row, _ = await self._account(workspace_id, email, tx)
        user_id: UUID = row["id"]
        person = await self._database.fetchrow(_ACCOUNT_SQL.find_person, email, tx=tx)
        assert person is not None, "it was added just now"
        if not person["verified"]:
            await self._forget_ways_in(user_id, tx)
        since = await self._database.fetchval(_SQL.add_member, workspace_id, user_id, role, tx=tx)
        if since is not None:
            await self._members.changed([workspace_id], tx)
            told = {"email": email, "role": role}
            await self._audit.record(
                actor, "user.join", ids.type_id(ids.USER, user_id), None, told, tx
            )
        return user_id

    async def _account(
        self, workspace_id: UUID, email: str, tx: Connection
    ) -> tuple[asyncpg.Record, bool]:
        """The account with this address, made where there is none; and whether it is known to
        belong to a workspace in another database cluster, where it has the same id."""
        user_id, elsewhere = ids.uuid7(), False
        if self._names is not None:
            user_id, elsewhere = await self._names.claim_person(email, user_id, workspace_id, tx)
        row = await self._database.fetchrow(_SQL.add_user, user_id, email, tx=tx)
        assert row is not None, "an insert that updates on conflict returns its row"
        return row, elsewhere

    async def get(self, workspace_id: UUID, user_id: UUID) -> User:
        """A member of the workspace. Raises NotFound."""
        return await self._members.get(workspace_id, user_id)

    async def list(
        self, workspace_id: UUID, *, after: UUID = _NOBODY, limit: int = 100
    ) -> list[User]:
        """Members after the person `after`, in the order of their ids."""
        return await self._members.list(workspace_id, after, limit)

    async def change_role(
        self, workspace_id: UUID, user_id: UUID, role: str, *, actor: Actor
    ) -> User:
        """Give a member another role. Raises Conflict for the last owner, NotFound."""
        role = check_role(role)
        async with self._database.transaction() as tx:
            before = await self._role_before(workspace_id, user_id, role, tx)
            await self._database.execute(_SQL.change_role, workspace_id, user_id, role, tx=tx)
            await self._members.changed([workspace_id], tx)
            await self._audit.record(
                actor,
                "user.change_role",
                ids.type_id(ids.USER, user_id),
                {"role": before},
                {"role": role},
                tx,
            )
        return await self.get(workspace_id, user_id)

    async def remove(self, workspace_id: UUID, user_id: UUID, *, actor: Actor) -> None:
        """End a membership and its sessions. Raises Conflict for the last owner, NotFound."""
        async with self._database.transaction() as tx:
            before = await self._role_before(workspace_id, user_id, None, tx)
            await self._database.execute(_SQL.remove_member, workspace_id, user_id, tx=tx)
            await self._database.execute(_SQL.end_sessions_of_member, workspace_id, user_id, tx=tx)
            await self._members.changed([workspace_id], tx)  # no member, no session there
            await self._audit.record(
                actor,
                "user.remove",
                ids.type_id(ids.USER, user_id),
                {"role": before},
                None,
                tx,
            )

    async def _role_before(
        self, workspace_id: UUID, user_id: UUID, role: str | None, tx: Connection
    ) -> str:
        """The member's role now. A workspace keeps at least one owner: the rows are locked."""
        rows = await self._database.fetch(_SQL.lock_members, workspace_id, tx=tx)
        roles: dict[UUID, str] = {row["user_id"]: row["role"] for row in rows}
        if user_id not in roles:
            raise NotFound("no such member")
        owners = sum(1 for held in roles.values() if held == OWNER)
        if roles[user_id] == OWNER and role != OWNER and owners == 1:
            raise Conflict("a workspace keeps at least one owner", field="role")
        return roles[user_id]

    async def set_password(
        self, user_id: UUID, password: str, *, actor: Actor, keep_session: bytes = b""
    ) -> None:
        """Set a person's own password and end their other sessions.

        `keep_session`: token hash of the session that asks, which goes on.
        """
        encoded = await self._hash(check_password(password))
        async with self._database.transaction() as tx:
            await self.store_password(
                user_id, encoded, actor=actor, tx=tx, keep_session=keep_session
            )

    async def store_password(
        self,
        user_id: UUID,
        encoded: str,
        *,
        actor: Actor,
        tx: Connection,
        keep_session: bytes = b"",
    ) -> None:
        """As `set_password` within `tx`, of what `hashed` gave."""
        await self._database.execute(_SQL.set_password, user_id, encoded, tx=tx)
        ended = await self._database.fetch(_SQL.end_other_sessions, user_id, keep_session, tx=tx)
        await self._members.sessions_ended(ended, tx)
        await self._members.person_changed(user_id, tx)
        await self._audit.record(
            actor,
            "user.set_password",
            ids.type_id(ids.USER, user_id),
            None,
            {"other_sessions": "ended"},
            tx,
        )

    async def hashed(self, password: str) -> str:
        """What is stored of a password: it takes a while, so not within a transaction."""
        return await self._hash(password)

    async def authenticate(self, email: str, password: str) -> UUID | None:
        """The id of the person who knows this password, or None.

        An unknown address costs the same hash as a known one, so that time tells nobody who has an
        account.
        """
        try:
            address = normalise(email)
        except InvalidInput:
            address = ""
        row = await self._database.fetchrow(_SQL.user_for_sign_in, address)
        encoded = row["password_hash"] if row is not None else None
        if not await self._verify(encoded or await self._decoy_hash(), password):
            return None
        if row is None or encoded is None:
            return None
        user_id: UUID = row["id"]
        if _HASHER.check_needs_rehash(encoded):
            await self._database.execute(_SQL.set_password, user_id, await self._hash(password))
        return user_id

    async def _forget_ways_in(self, user_id: UUID, tx: Connection) -> None:
        ended = await self._database.fetch(_SQL.forget_ways_in, user_id, tx=tx)
        await self._members.sessions_ended(ended, tx)
        await self._members.person_changed(user_id, tx)

    async def _hash(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(_HASHER.hash, password)

    async def _verify(self, encoded: str, password: str) -> bool:
        async with self._hashing:
            try:
                return await asyncio.to_thread(
                    _HASHER.verify, encoded, password[: PASSWORD_CHARACTERS_MAX + 1]
                )
            except (Argon2Error, InvalidHashError):
                return False

    async def _decoy_hash(self) -> str:
        if self._decoy is None:
            self._decoy = await self._hash("nobody has this password")
        return self._decoy
