"""Where mail leads whose address is no inbox's: plus addresses, aliases, patterns, catch-alls.

Asked only for addresses without an inbox, many at a time. The rules of a domain are remembered for
REMEMBERED_S, and forgotten at once when somebody changes rules and the bus says so; that a domain
is not ours is remembered too. Which inbox a rule leads to is looked up each time, so that an inbox
made a moment ago is found and one that is gone is not.

The order: `ada+anything` leads where `ada` is an inbox; then the rule whose pattern is the very
name, or the part before +; then patterns in their order, the catch-all last.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from mailyard.bus.bus import Bus
from mailyard.core.clock import Clock, SystemClock
from mailyard.receiving.pattern import CATCH_ALL, is_wild, matches
from mailyard.receiving.route import Route
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("receiving")
DOMAINS = load("receiving_domain")
TOPIC = "receiving-domains"

REMEMBERED_S = 5.0
_REMEMBERED_DOMAINS = 10_000  # that are asked for by others is cheap; that many names are not kept

INBOX = "inbox"
WEBHOOK = "webhook"
FORWARD = "forward"
DROP = "drop"
REFUSE = "refuse"


class Rule(NamedTuple):
    """What to do with mail to names that match `pattern`. `address`: of the inbox it is filed in,
    empty where it is in none."""

    pattern: str
    action: str
    address: str


class Rules:
    """The rules of one domain, in their order."""

    __slots__ = ("_exact", "_wild", "plus", "workspace_id")

    def __init__(self, workspace_id: UUID | None, plus: bool, rules: Iterable[Rule]) -> None:
        self.workspace_id = workspace_id  # None: a domain of the installation, which has no rules
        self.plus = plus
        self._exact: dict[str, Rule] = {}
        self._wild: list[Rule] = []
        for rule in rules:
            if is_wild(rule.pattern):
                self._wild.append(rule)
            else:
                self._exact[rule.pattern] = rule
        self._wild.sort(key=lambda rule: rule.pattern == CATCH_ALL)  # stable: the rest as it was

    def find(self, local: str, base: str) -> Iterator[Rule]:
        """The rules for the part before @, in their order; `base` is what stands before +."""
        names = (local,) if base == local else (local, base)
        for name in names:
            if (exact := self._exact.get(name)) is not None:
                yield exact
        for rule in self._wild:
            if any(matches(rule.pattern, name) for name in names):
                yield rule


class _Lead(NamedTuple):
    """A way to try: an inbox's address, or the end of the search (an address that is none)."""

    workspace_id: UUID | None
    address: str
    action: str


class Elsewhere:
    """Finds routes for addresses without an inbox (`receiving.route.Elsewhere`). One event loop's.

    `domains`: the installation's own, under which inboxes of all workspaces are.
    """

    def __init__(
        self, *, database: Database, bus: Bus, domains: Sequence[str], clock: Clock | None = None
    ) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._own = {name.lower(): Rules(None, plus=True, rules=()) for name in domains}
        self._changed = bus.subscribe(TOPIC)
        self._known: dict[str, tuple[float, Rules | None]] = {}

    async def lead(self, addresses: Sequence[str], connection: Connection) -> dict[str, Route]:
        """The routes of those of the normalised `addresses` that lead somewhere."""
        rules = await self._rules({address.rpartition("@")[2] for address in addresses}, connection)
        leads = {address: list(_leads(address, rules)) for address in addresses}
        wanted = {lead.address for found in leads.values() for lead in found if lead.address}
        inboxes: dict[str, Route] = {}
        if wanted:
            rows = await self._database.fetch(QUERIES.find_routes, list(wanted), tx=connection)
            inboxes = {row[0]: Route(*row) for row in rows}
        routes = {}
        for address, found in leads.items():
            route = _first(address, found, inboxes)
            if route is not None:
                routes[address] = route
        return routes

    async def _rules(self, names: set[str], connection: Connection) -> dict[str, Rules]:
        """The rules of those of the domains `names` that mail is received for."""
        now = self._clock.monotonic()
        if self._changed.heard():
            self._known.clear()
        found = {name: self._own[name] for name in names if name in self._own}
        unknown = []
        for name in names - found.keys():
            until, rules = self._known.get(name, (0.0, None))
            if until <= now:
                unknown.append(name)
            elif rules is not None:
                found[name] = rules
        if unknown:
            loaded = await self._load(unknown, connection)
            if len(self._known) + len(unknown) > _REMEMBERED_DOMAINS:
                self._known.clear()
            for name in unknown:
                self._known[name] = (now + REMEMBERED_S, loaded.get(name))
            found |= loaded
        return found

    async def _load(self, names: Sequence[str], connection: Connection) -> dict[str, Rules]:
        rows = await self._database.fetch(DOMAINS.rules_of, names, tx=connection)
        rules: dict[str, list[Rule]] = {}
        heads = {}
        for row in rows:
            heads[row["name"]] = row
            of_domain = rules.setdefault(row["name"], [])
            if row["pattern"] is not None:
                of_domain.append(Rule(row["pattern"], row["action"], row["address"]))
        return {
            name: Rules(row["workspace_id"], row["plus"], rules[name])
            for name, row in heads.items()
        }


def _leads(address: str, known: dict[str, Rules]) -> Iterator[_Lead]:
    """The ways to try for `address`, in their order."""
    local, _, domain = address.rpartition("@")
    rules = known.get(domain)
    if rules is None:
        return
    base = local.partition("+")[0] if rules.plus and local[:1] not in ("+", '"') else local
    if base != local:
        yield _Lead(rules.workspace_id, f"{base}@{domain}", INBOX)
    for rule in rules.find(local, base):
        yield _Lead(rules.workspace_id, rule.address, rule.action)
        if rule.action in (DROP, REFUSE):
            return


def _first(address: str, leads: Sequence[_Lead], inboxes: dict[str, Route]) -> Route | None:
    for lead in leads:
        if lead.action == REFUSE:
            return None
        if lead.action == DROP:
            assert lead.workspace_id is not None, "only a workspace's domain has rules"
            return Route(address, lead.workspace_id, None, 1, dropped=True)
        inbox = inboxes.get(lead.address)
        # A rule leads to its own workspace's inboxes alone.
        if inbox is not None and lead.workspace_id in (None, inbox.workspace_id):
            return Route(
                address,
                inbox.workspace_id,
                inbox.inbox_id,
                inbox.retention_days,
                inbox.room,
                inbox.bytes_max,
                inbox.address,
            )
    return None
