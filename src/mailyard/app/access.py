"""Who may do what, and what keeps secrets."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.foundation import Foundation
from mailyard.core.errors import ConfigurationError
from mailyard.settings import Settings

if TYPE_CHECKING:
    from mailyard.access.audit import Audit
    from mailyard.access.business import BusinessFigures
    from mailyard.access.feature import Features
    from mailyard.access.idempotency import Idempotency
    from mailyard.access.key import ApiKeys
    from mailyard.access.limit_notice import LimitNotices
    from mailyard.access.member import Members
    from mailyard.access.neighbours import Neighbours
    from mailyard.access.plan import PlanBook, Plans
    from mailyard.access.region import Regions
    from mailyard.access.session import Sessions
    from mailyard.access.usage import Allowance, Usage
    from mailyard.access.user import Users
    from mailyard.access.vault import Vault
    from mailyard.access.workspace import Workspaces
    from mailyard.queue.admin import QueueAdmin
    from mailyard.ratelimit.policy import Book, Policies


class Access(Foundation):
    """Workspaces, people, keys, limits."""

    @cached_property
    def audit(self) -> "Audit":
        from mailyard.access.audit import Audit

        return Audit(database=self.database)

    @cached_property
    def workspaces(self) -> "Workspaces":
        from mailyard.access.workspace import Workspaces

        return Workspaces(
            database=self.database,
            audit=self.audit,
            cache=self.cache,
            region=self.settings.region,
        )

    @cached_property
    def regions(self) -> "Regions":
        """The regions of the settings' file. Raises ConfigurationError."""
        from mailyard.access.region import NO_REGIONS, Regions, read_regions

        settings, file = self.settings, self.settings.regions_file
        if file is None:
            return Regions(settings.region) if settings.region else NO_REGIONS
        try:
            return read_regions(str(file), file.read_text("utf-8"), settings.region)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"MAILYARD_REGIONS_FILE cannot be read: {error}") from None

    @cached_property
    def neighbours(self) -> "Neighbours | None":
        """What knows what is at home in other regions; None where there are none."""
        if not self.regions.others:
            return None
        from mailyard.access.neighbours import Neighbours

        neighbours = Neighbours(self.regions)
        self.ends.append(neighbours.close)
        return neighbours

    @cached_property
    def users(self) -> "Users":
        from mailyard.access.user import Users

        return Users(
            database=self.database, audit=self.audit, members=self.members, names=self.names
        )

    @cached_property
    def members(self) -> "Members":
        """Who belongs to a workspace."""
        from mailyard.access.member import Members

        return Members(database=self.database, cache=self.cache)

    @cached_property
    def sessions(self) -> "Sessions":
        from mailyard.access.session import Sessions

        return Sessions(
            database=self.database,
            audit=self.audit,
            members=self.members,
            cache=self.cache,
            names=self.names,
        )

    @cached_property
    def keys(self) -> "ApiKeys":
        from mailyard.access.key import ApiKeys

        return ApiKeys(database=self.database, audit=self.audit, cache=self.cache, names=self.names)

    @cached_property
    def idempotency(self) -> "Idempotency":
        from mailyard.access.idempotency import Idempotency

        return Idempotency(database=self.database)

    @cached_property
    def plan_book(self) -> "PlanBook":
        """The plans of the settings' file. Raises ConfigurationError."""
        from mailyard.access.plan import NO_PLANS, read_plans

        file = self.settings.plans_file
        if file is None:
            return NO_PLANS
        try:
            return read_plans(str(file), file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"MAILYARD_PLANS_FILE cannot be read: {error}") from None

    @cached_property
    def plans(self) -> "Plans":
        from mailyard.access.plan import Plans

        return Plans(
            database=self.database, audit=self.audit, book=self.plan_book, cache=self.cache
        )

    @cached_property
    def usage(self) -> "Usage":
        from mailyard.access.usage import Usage

        return Usage(database=self.database, plans=self.plans, clock=self.clock)

    @cached_property
    def allowance(self) -> "Allowance":
        """Whether a workspace may use more of its plan."""
        from mailyard.access.usage import Allowance

        return Allowance(
            database=self.database, plans=self.plans, usage=self.usage, clock=self.clock
        )

    @cached_property
    def limit_notices(self) -> "LimitNotices":
        from mailyard.access.limit_notice import LimitNotices

        return LimitNotices(
            database=self.database, engine=self.engine, plans=self.plans, usage=self.usage
        )

    @cached_property
    def business(self) -> "BusinessFigures":
        from mailyard.access.business import BusinessFigures

        return BusinessFigures(database=self.database, plans=self.plans, clock=self.clock)

    @cached_property
    def vault(self) -> "Vault":
        """What seals stored secrets, under the settings' key or one made in the data folder."""
        from mailyard.access.master_key import ensure_master_key, parse_master_keys
        from mailyard.access.vault import Vault

        settings = self.settings
        return Vault(
            lambda: parse_master_keys(settings.master_key) or ensure_master_key(settings.data)
        )

    @cached_property
    def features(self) -> "Features":
        """What comes to workspaces gradually."""
        from mailyard.access.feature import Features

        return Features(database=self.database, bus=self.bus, clock=self.clock)

    @cached_property
    def limit_policies(self) -> "Policies":
        """Limits by name. Raises ConfigurationError."""
        from mailyard.ratelimit.policy import Policies

        return Policies(book=read_book(self.settings), limits=self.limits)

    @cached_property
    def queue_admin(self) -> "QueueAdmin":
        from mailyard.queue.admin import QueueAdmin

        return QueueAdmin(engine=self.engine)


def read_book(settings: Settings) -> "Book":
    """The limits by name, those of the settings' file over the shipped ones. Raises
    ConfigurationError."""
    from mailyard.ratelimit.policy import read_policies, shipped

    book, file = shipped(), settings.limit_policies_file
    if file is not None:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"MAILYARD_LIMIT_POLICIES_FILE cannot be read: {error}"
            ) from None
        book = read_policies(str(file), text, book)
    if settings.user_limit and settings.user_limit not in book:
        raise ConfigurationError(
            f"MAILYARD_USER_LIMIT is {settings.user_limit!r}; limits are {', '.join(sorted(book))}"
        )
    return book
