"""Whether nobody can take all of it, and limits see who it is that asks."""

from dataclasses import dataclass

from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What the settings say. `plans`: workspaces have one; `user_limit`: its name or empty."""

    rate_per_s: float
    user_limit: str
    sign_up: bool
    plans: bool


def judge_limits(said: LimitSettings) -> Item:
    """Requests of a key, of a person, and what a workspace may use."""
    if said.rate_per_s == 0:
        found = "API keys may ask as often as they like: MAILYARD_RATE_PER_S is 0"
        return missing(needs.LIMITS, found, "set MAILYARD_RATE_PER_S and MAILYARD_RATE_BURST")
    found = f"{said.rate_per_s:g} requests a second a key"
    if said.sign_up and not said.plans:
        fix = "name a file in MAILYARD_PLANS_FILE (docs/PLANS.md), or MAILYARD_SIGN_UP=false"
        return missing(needs.LIMITS, "anybody may sign up, and nothing ends what he uses", fix)
    if not said.user_limit:
        fix = "MAILYARD_USER_LIMIT=general (docs/FLEET.md)"
        return thin(needs.LIMITS, f"{found}, none for people who are signed in", fix)
    return met(needs.LIMITS, f"{found}, {said.user_limit} for a person")


def judge_clients(http_balancers: str, smtp_balancers: str) -> Item:
    """Behind a balancer, limits and SPF go by the address that it names."""
    if not http_balancers:
        return missing(
            needs.CLIENTS,
            "the API takes its balancer for the client: limits by address count all as one",
            "MAILYARD_HTTP_BALANCERS: the balancers' networks (docs/DEPLOYMENT.md)",
        )
    if not smtp_balancers:
        return thin(
            needs.CLIENTS,
            "the SMTP server takes who connects for the client: right only where nothing stands "
            "before it, or what does keeps addresses",
            "MAILYARD_SMTP_BALANCERS, and the PROXY protocol in the balancer",
        )
    return met(needs.CLIENTS, f"believed of {http_balancers} and {smtp_balancers}")
