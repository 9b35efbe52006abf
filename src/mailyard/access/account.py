"""How people come in by themselves: sign-up, invitations, forgotten passwords.

All three go by a mailed link, which works once and for a while; only its SHA-256 is stored. Who
asks learns nothing about who has an account: whatever is asked for, one job is put into the queue
and the same is answered, and what differs happens in a worker (who writes to whom, or to nobody).

A person who followed a mailed link reads the mail of the address: the account is verified. One that
was made by a workspace's owner (`Users.add`) is not, and whoever made it may have a way in; taking
up an invitation, or setting a new password, takes those ways away.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Literal
from uuid import UUID

import msgspec

from mailyard.access import letter
from mailyard.access.audit import Actor, Audit
from mailyard.access.errand import WRITE, Errand, job_of, new_token
from mailyard.access.letter import Letter
from mailyard.access.plan import Plans
from mailyard.access.scope import OWNER, check_role
from mailyard.access.session import token_hash
from mailyard.access.user import Users, check_password
from mailyard.access.workspace import Workspaces, check_name
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, NotAllowed, NotFound, RateLimited
from mailyard.protocol.address import normalise
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_SEND
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("account")
_USAGE_SQL = load("usage")
_ACCESS_SQL = load("access")

SIGN_UP_S = 24 * 3600.0
RESET_S = 30 * 60.0
INVITATION_S = 7 * 24 * 3600.0
_FIRST = UUID(int=0)
_HOUR_S = 3600.0
_PER_ADDRESS = 4  # asked for one address in an hour
_PER_PEER = 30  # from one public address in an hour
_PER_WORKSPACE = 50  # invitations in an hour
_ALL_PER_S, _ALL_AT_ONCE = 2.0, 200  # letters that strangers can make us write

# Delivers a letter: durable when it returns; one with the same key is written once.
Post = Callable[[Letter, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open invitation into a workspace."""

    id: UUID
    email: str
    role: str
    invited_by: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation as whoever got it sees it. `needs_password`: the account has none that is
    theirs alone."""

    workspace_id: UUID
    workspace: str
    email: str
    role: str
    needs_password: bool


class Accounts:
    """Asks, links and what comes of them."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        audit: Audit,
        users: Users,
        workspaces: Workspaces,
        plans: Plans,
        limits: RateLimit,
        post: Post,
        page_url: str,
        may_sign_up: bool,
    ) -> None:
        self._database = database
        self._engine = engine
        self._audit = audit
        self._users = users
        self._workspaces = workspaces
        self._plans = plans
        self._limits = limits
        self._post = post
        self._page_url = page_url
        self.may_sign_up = may_sign_up

    # Asking ------------------------------------------------------------------------------------

    async def ask_sign_up(self, email: str, peer: str) -> None:
        """Have a link mailed that makes an account. Raises NotAllowed when sign-up is off,
        InvalidInput, RateLimited; else the same for every address."""
        if not self.may_sign_up:
            raise NotAllowed("nobody can sign up here; ask for an invitation")
        await self._ask("sign_up", email, peer)

    async def ask_reset(self, email: str, peer: str) -> None:
        """Have a link mailed that sets a new password. Raises InvalidInput, RateLimited; else the
        same for every address."""
        await self._ask("reset", email, peer)

    async def _ask(self, about: Literal["sign_up", "reset"], email: str, peer: str) -> None:
        address = normalise(email)
        await self._admit(_bucket(about, address), _PER_ADDRESS / _HOUR_S, _PER_ADDRESS)
        if _is_public(peer):  # else it is a proxy's, and everybody's
            await self._admit(f"account-peer:{peer}", _PER_PEER / _HOUR_S, _PER_PEER)
        await self._admit("account-letters", _ALL_PER_S, _ALL_AT_ONCE)
        await self._engine.enqueue([job_of(Errand(about, new_token(), email=address))])

    async def _admit(self, key: str, per_s: float, burst: int) -> None:
        wait_s = await self._limits.take(key, 1, per_s, burst)
        if wait_s > 0:
            raise RateLimited("asked for too often; the mails may have come", retry_after_s=wait_s)

    # Following a link ---------------------------------------------------------------------------

    async def linked(self, purpose: str, token: str) -> str | None:
        """Whom a link that still works was mailed to. Looking does not spend it."""
        email: str | None = await self._database.fetchval(
            _SQL.find_link, token_hash(token), purpose
        )
        return email

    async def sign_up(self, token: str, password: str, workspace: str) -> UUID:
        """Make the account and its workspace; the person. Raises NotFound for a link that does not
        work, InvalidInput, Conflict when the address has an account by now."""
        if not self.may_sign_up:
            raise NotAllowed("nobody can sign up here; ask for an invitation")
        name = check_name(workspace, "workspace")
        await self._look("sign_up", token)
        encoded = await self._users.hashed(check_password(password))
        async with self._database.transaction() as tx:
            email = await self._spend("sign_up", token, tx)
            person = await self._database.fetchrow(_SQL.find_person, email, tx=tx)
            if person is not None and person["belongs"]:
                raise Conflict(
                    "there is an account for this address; sign in, or reset its password"
                )
            made = await self._workspaces.create(name, actor_kind="user", actor_name=email, tx=tx)
            await self._database.execute(
                _SQL.mark_sign_up, made.id, self._plans.book.sign_up, tx=tx
            )
            actor = Actor("user", email, made.id)
            user = await self._users.add(made.id, email, OWNER, actor=actor, tx=tx)
            await self._own(user.id, email, encoded, actor, tx)
        return user.id

    async def reset(self, token: str, password: str) -> UUID:
        """Set a new password and end every session; the person. Raises NotFound for a link that
        does not work, InvalidInput."""
        await self._look("reset", token)
        encoded = await self._users.hashed(check_password(password))
        async with self._database.transaction() as tx:
            email = await self._spend("reset", token, tx)
            person = await self._database.fetchrow(_SQL.find_person, email, tx=tx)
            if person is None:
                raise NotFound("this link was used before, or is too old")
            rows = await self._database.fetch(_ACCESS_SQL.workspaces_of_user, person["id"], tx=tx)
            actor = Actor("user", email, rows[0]["workspace_id"] if rows else _FIRST)
            await self._own(person["id"], email, encoded, actor, tx)
            await self._engine.enqueue([job_of(Errand("changed", email=email))], tx=tx)
        user_id: UUID = person["id"]
        return user_id

    async def _look(self, purpose: str, token: str) -> None:
        """Before a password is hashed: that costs memory and time, and strangers may ask for it."""
        if await self.linked(purpose, token) is None:
            raise NotFound("this link was used before, or is too old")

    async def _spend(self, purpose: str, token: str, tx: Connection) -> str:
        email = await self._database.fetchval(_SQL.use_link, token_hash(token), purpose, tx=tx)
        if email is None:
            raise NotFound("this link was used before, or is too old")
        return str(email)

    async def _own(
        self, user_id: UUID, email: str, encoded: str, actor: Actor, tx: Connection
    ) -> None:
        """The account is its address's: no way in stays but the new password."""
        await self._database.execute(_SQL.end_links, email, tx=tx)
        await self._users.store_password(user_id, encoded, actor=actor, tx=tx)
        await self._database.execute(_SQL.verify_person, user_id, tx=tx)

    # Invitations --------------------------------------------------------------------------------

    async def invite(
        self, workspace_id: UUID, email: str, role: str, *, actor: Actor, tx: Connection
    ) -> Invitation:
        """Ask a person in by mail, or ask again. Raises InvalidInput, RateLimited, Conflict when
        they are a member already."""
        address, role = normalise(email), check_role(role)
        await self._admit(
            f"invitations:{workspace_id.hex}", _PER_WORKSPACE / _HOUR_S, _PER_WORKSPACE
        )
        await self._admit(_bucket("invite", address), _PER_ADDRESS / _HOUR_S, _PER_ADDRESS)
        if await self._database.fetchval(_SQL.is_member, workspace_id, address, tx=tx):
            raise Conflict(f"{address} is a member already", field="email")
        row = await self._database.fetchrow(
            _SQL.invite, ids.uuid7(), workspace_id, address, role, actor.name, INVITATION_S, tx=tx
        )
        assert row is not None, "an insert that updates on conflict returns its row"
        name = ids.type_id(ids.INVITATION, row["id"])
        told = {"email": address, "role": role}
        await self._audit.record(actor, "invitation.create", name, None, told, tx)
        errand = Errand("invitation", new_token(), id=str(row["id"]))
        await self._engine.enqueue([job_of(errand, workspace_id)], tx=tx)
        return Invitation(row["id"], address, role, actor.name, row["expires_at"])

    async def invitations(
        self, workspace_id: UUID, *, after: UUID = _FIRST, limit: int = 100
    ) -> Sequence[Invitation]:
        """A workspace's invitations that nobody took up, in the order of their ids."""
        rows = await self._database.fetch(_SQL.list_invitations, workspace_id, after, limit)
        return [Invitation(**row) for row in rows]

    async def withdraw(
        self, workspace_id: UUID, invitation_id: UUID, *, actor: Actor, tx: Connection
    ) -> None:
        """Take an invitation back: its link leads nowhere from now on. Raises NotFound."""
        row = await self._database.fetchrow(
            _SQL.withdraw_invitation, workspace_id, invitation_id, tx=tx
        )
        if row is None:
            raise NotFound("no such invitation")
        name = ids.type_id(ids.INVITATION, invitation_id)
        await self._audit.record(actor, "invitation.withdraw", name, dict(row), None, tx)

    async def invited(self, token: str) -> Invited | None:
        """What a mailed invitation is to, while it works. Looking does not spend it."""
        row = await self._database.fetchrow(_SQL.find_invitation, token_hash(token))
        if row is None:
            return None
        person = await self._database.fetchrow(_SQL.find_person, row["email"])
        has_own = person is not None and person["verified"] and person["has_password"]
        return Invited(
            row["workspace_id"], row["workspace"], row["email"], row["role"], not has_own
        )

    async def take_up(self, token: str, password: str) -> tuple[UUID, UUID]:
        """Become a member; the person and the workspace. `password` is set where the account has
        none of its own. Raises NotFound for a link that does not work, InvalidInput."""
        seen = await self.invited(token)
        if seen is None:
            raise NotFound("this invitation was used before, withdrawn, or is too old")
        encoded = ""
        if seen.needs_password:
            encoded = await self._users.hashed(check_password(password))
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(_SQL.take_invitation, token_hash(token), tx=tx)
            if row is None:
                raise NotFound("this invitation was used before, withdrawn, or is too old")
            workspace_id, email = row["workspace_id"], row["email"]
            actor = Actor("user", email, workspace_id)
            user_id = await self._users.join(workspace_id, email, row["role"], actor=actor, tx=tx)
            person = await self._database.fetchrow(_SQL.find_person, email, tx=tx)
            assert person is not None, "who joined is there"
            if not (person["verified"] and person["has_password"]):
                if not encoded:
                    raise InvalidInput("set a password", field="password")
                await self._own(user_id, email, encoded, actor, tx)
        return user_id, workspace_id

    # Writing ------------------------------------------------------------------------------------

    def handler(self) -> Handler:
        """What a worker runs: it writes the letters."""
        return Handler(WRITE, EMAIL_SEND, self._write, batch_size=1, concurrency=2)

    async def _write(self, batch: Batch) -> None:
        job = batch.jobs[0]
        errand = msgspec.json.decode(job.payload, type=Errand)
        for place, one in enumerate(await self._letters(errand, job.workspace_id)):
            await self._post(one, f"letter-{job.id}-{place}")

    async def _letters(self, errand: Errand, workspace_id: UUID | None) -> list[Letter]:
        page = self._page_url
        if errand.about == "sign_up":
            person = await self._database.fetchrow(_SQL.find_person, errand.email)
            if person is not None and person["belongs"]:
                return [letter.has_account(errand.email, f"{page}/sign-in")]
            await self._keep(errand, SIGN_UP_S)
            hours = round(SIGN_UP_S / 3600)
            return [letter.sign_up(errand.email, f"{page}/sign-up/{errand.token}", hours)]
        if errand.about == "reset":
            person = await self._database.fetchrow(_SQL.find_person, errand.email)
            if person is None or not person["belongs"]:
                return []
            await self._keep(errand, RESET_S)
            link = f"{page}/reset/{errand.token}"
            return [letter.reset(errand.email, link, round(RESET_S / 60))]
        if errand.about == "changed":
            return [letter.password_changed(errand.email, f"{page}/reset")]
        if workspace_id is None:
            raise AssertionError("an errand of a workspace names it")
        if errand.about == "invitation":
            return await self._invitation(workspace_id, UUID(errand.id), errand.token)
        rows = await self._database.fetch(_USAGE_SQL.owners, workspace_id)
        return [
            letter.limit(
                row["email"],
                kind=errand.kind,
                level=errand.level,
                used=errand.used,
                most=errand.most,
                page=f"{page}/usage",
            )
            for row in rows
        ]

    async def _invitation(
        self, workspace_id: UUID, invitation_id: UUID, token: str
    ) -> list[Letter]:
        row = await self._database.fetchrow(
            _SQL.write_invitation, workspace_id, invitation_id, token_hash(token)
        )
        if row is None:
            return []  # withdrawn, or taken up meanwhile
        return [
            letter.invitation(
                row["email"],
                f"{self._page_url}/invitation/{token}",
                workspace=row["workspace"],
                role=row["role"],
                by=row["invited_by"],
                days=round(INVITATION_S / 86_400),
            )
        ]

    async def _keep(self, errand: Errand, lasts_s: float) -> None:
        await self._database.execute(
            _SQL.add_link, token_hash(errand.token), errand.about, errand.email, lasts_s
        )

    async def sweep(self) -> None:
        """Remove what ran out (a duty of the scheduler)."""
        await self._database.execute(_SQL.sweep_links)


def _bucket(about: str, address: str) -> str:
    return f"account:{about}:{address}"


def account_buckets(address: str) -> list[str]:
    """What letters to the normalised `address` count against (`RateLimit.forget`)."""
    return [_bucket(about, address) for about in ("sign_up", "reset", "invite")]


def _is_public(peer: str) -> bool:
    try:
        return ip_address(peer).is_global
    except ValueError:
        return False
