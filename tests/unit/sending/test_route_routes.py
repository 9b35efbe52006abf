"""Which provider a mail goes to: the first route that fits, its weights, its order for failover."""

from collections import Counter
from random import Random
from uuid import UUID

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.sending.route.routes import (
    Envelope,
    Health,
    Leg,
    Route,
    Routes,
    When,
    choose,
)

ONE, TWO = UUID(int=1), UUID(int=2)
PROVIDERS = ["ses", "sendgrid", "mx"]
READY = Health(True)


def mail(
    workspace: UUID = ONE,
    tags: tuple[str, ...] = (),
    domain: str = "example.com",
    site: str = "mx.example.com",
    stream: str = "email-send",
) -> Envelope:
    return Envelope(workspace, frozenset(tags), domain, site, stream)


def route(name: str, *legs: Leg, **when: frozenset[object]) -> Route:
    return Route(name, legs or (Leg("mx"),), When(**when))  # type: ignore[arg-type]


ROUTES = Routes(
    [
        route("vip", workspaces=frozenset({TWO})),
        route("codes", tags=frozenset({"otp", "reset"})),
        route("gmail", sites=frozenset({"google.com"}), streams=frozenset({"email-bulk"})),
        route("germany", domains=frozenset({"t-online.de", "gmx.de"})),
        route("rest"),
    ],
    PROVIDERS,
)


@pytest.mark.parametrize(
    ("envelope", "name"),
    [
        (mail(workspace=TWO, tags=("otp",)), "vip"),
        (mail(tags=("news", "reset")), "codes"),
        (mail(site="aspmx.l.google.com", stream="email-bulk"), "gmail"),
        (mail(site="aspmx.l.google.com", stream="email-send"), "rest"),
        (mail(site="notgoogle.com", stream="email-bulk"), "rest"),
        (mail(domain="GMX.de"), "germany"),
        (mail(domain="mail.t-online.de"), "germany"),
        (mail(domain="hot-t-online.de"), "rest"),
        (mail(), "rest"),
    ],
)
def test_the_first_route_that_fits_is_the_mail_s(envelope: Envelope, name: str) -> None:
    assert ROUTES.route_of(envelope).name == name


def test_weights_share_the_first_place() -> None:
    legs = (Leg("ses", 70), Leg("sendgrid", 30))
    random = Random(3)
    first = Counter(
        choose(route("r", *legs), lambda _: READY, random).candidates[0] for _ in range(4_000)
    )
    assert first["ses"] / 4_000 == pytest.approx(0.7, abs=0.03)


def test_order_comes_before_weight_and_the_rest_is_for_failover() -> None:
    legs = (Leg("mx", 1_000, order=1), Leg("ses", 1), Leg("sendgrid", 1))
    for seed in range(50):
        candidates = choose(route("r", *legs), lambda _: READY, Random(seed)).candidates
        assert set(candidates) == set(PROVIDERS)
        assert candidates[2] == "mx"


def test_weight_zero_is_only_asked_when_its_order_has_nobody_else() -> None:
    legs = (Leg("ses", 0), Leg("sendgrid", 1))
    for seed in range(50):
        assert choose(route("r", *legs), lambda _: READY, Random(seed)).candidates[0] == "sendgrid"
    healths = {"sendgrid": Health(False, "down", 5.0), "ses": READY}
    assert choose(route("r", *legs), healths.__getitem__, Random(0)).candidates == ("ses",)


def test_a_provider_that_is_away_is_left_out_and_the_page_is_told_why() -> None:
    legs = (Leg("ses", 9), Leg("sendgrid", 1))
    healths = {"ses": Health(False, "11 of 20 mails failed", 90.0), "sendgrid": READY}
    choice = choose(route("r", *legs), healths.__getitem__, Random(0))
    assert choice.candidates == ("sendgrid",)
    assert [(one.provider, one.why) for one in choice.skipped] == [("ses", "11 of 20 mails failed")]


def test_when_all_are_away_the_mail_waits_for_the_first_that_is_tried_again() -> None:
    healths = {"ses": Health(False, "a", 90.0), "sendgrid": Health(False, "b", 60.0)}
    choice = choose(route("r", Leg("ses"), Leg("sendgrid")), healths.__getitem__, Random(0))
    assert (choice.candidates, choice.again_at_s) == ((), 60.0)


@pytest.mark.parametrize(
    ("routes", "part", "allowed"),
    [
        ([], "routes", "1 to"),
        ([route("a", tags=frozenset({"x"}))], "routes[0].when", "last route"),
        ([route("a"), route("b")], "routes[0].when", "below it"),
        ([route("a", tags=frozenset({"x"})), route("a")], "routes[1].name", "of its own"),
        ([route("a", Leg("nobody"))], "routes[0].legs[0].provider", "mx, sendgrid, ses"),
        ([route("a", Leg("ses"), Leg("ses"))], "routes[0].legs[1].provider", "once"),
        ([route("a", Leg("ses", -1))], "routes[0].legs[0].weight", "0 to 1000"),
        ([route("a", Leg("ses", order=20))], "routes[0].legs[0].order", "0 to 19"),
        ([Route("a", ())], "routes[0].legs", "1 to 20"),
        ([route("a", domains=frozenset({"A.de"})), route("b")], "routes[0].when", "lower case"),
    ],
)
def test_routes_that_cannot_be_meant_are_refused(
    routes: list[Route], part: str, allowed: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        Routes(routes, PROVIDERS)
    assert part in str(raised.value)
    assert allowed in str(raised.value)
