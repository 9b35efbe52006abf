"""The kinds of providers: what each wants to know, and how its transport is made.

One table. A kind's module is imported when the first of its transports is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from mailyard.core import ids
from mailyard.core.clock import Clock
from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.net.guard import Network
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.transport import Transport

if TYPE_CHECKING:
    from mailyard.net.http import HttpClient
    from mailyard.sending.transports.sign_in import SignIn

SECRET_CHARACTERS = 4_096
OWN_POOL = "default"

_Host = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._:-]+$")]
_Word = Annotated[str, Meta(max_length=255, pattern=r"^[!-~]*$")]
_Url = Annotated[str, Meta(max_length=500, pattern=r"^(https?://[!-~]+)?$")]
_PerS = Annotated[float, Meta(gt=0, le=1_000_000)]
_InFlight = Annotated[int, Meta(ge=1, le=1_000)]
_Folder = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]


@dataclass(frozen=True, slots=True)
class Opened:
    """A provider with its secrets, for who makes its transport. `shared`: the operator's."""

    id: UUID
    workspace_id: UUID
    shared: bool
    name: str
    kind: str
    settings: Mapping[str, Any]
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What transports are made with. `http` gives the process's one client, which is loaded when
    the first provider needs it. `allowed`: networks that providers may be in although they
    are not public. `data`: where a provider of kind `file` has its folder. `own`: makes own
    delivery under a name, from a pool of source addresses; None where there is none."""

    hello: str
    http: "Callable[[], HttpClient]"
    rate: RateLimit
    clock: Clock
    random: Random
    data: Path
    allowed: tuple[Network, ...] = ()
    own: Callable[[str, str], Transport] | None = None


class SmtpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A relay. `tls`: STARTTLS that must succeed, TLS on connect, STARTTLS where it is offered, or
    none. `verify`: whether the certificate is. `auth` is chosen by what the relay offers when
    empty; xoauth2 takes an access token, or gets one at `token_url`."""

    host: _Host
    port: Annotated[int, Meta(ge=1, le=65535)] = 587
    tls: Literal["starttls", "on_connect", "opportunistic", "none"] = "starttls"
    verify: bool = True
    connections: Annotated[int, Meta(ge=1, le=200)] = 10
    username: _Word = ""
    auth: Literal["", "plain", "login", "xoauth2"] = ""
    token_url: _Url = ""
    client_id: _Word = ""


class _Http(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every HTTP provider may be told: its limit a second, requests at once, another address
    than the vendor's public one."""

    per_s: _PerS | None = None
    in_flight: _InFlight = 20
    endpoint: _Url = ""


class SesSettings(_Http, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Amazon SES; `per_s` counts recipients, as its quota does."""

    region: Annotated[str, Meta(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
    access_key_id: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
    configuration_set: _Word = ""


class SendgridSettings(_Http, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Twilio SendGrid."""


class PostmarkSettings(_Http, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Postmark; `stream` is one of the server's message streams."""

    stream: _Word = "outbound"


class MailgunSettings(_Http, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Mailgun; `domain` is the sending domain there."""

    domain: _Host


class ResendSettings(_Http, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Resend."""


class MxSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Own delivery to the recipients' mail servers. `pool`: of the installation's source addresses;
    others than `default` are for shared providers, which are the operator's."""

    pool: _Folder = OWN_POOL


class FileSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder below the installation's data, for development."""

    folder: _Folder = "mail"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `secrets`: those it must have, `more_secrets`: those it may.

    `check` says what is wrong with settings and the names of the secrets together, or nothing.
    `rewrites`: it carries our signature, and writes Message-ID and Date anew.
    `of_operator`: it sends from the installation's addresses, or writes to its disk; a tenant's
    workspace may be given one, and makes none.
    """

    title: str
    settings: type[Struct]
    secrets: tuple[str, ...]
    make: Callable[[Opened, Any, Workshop], Transport]
    more_secrets: tuple[str, ...] = ()
    rewrites: bool = False
    of_operator: bool = False
    check: Callable[[Any, frozenset[str]], None] | None = None


def make(opened: Opened, workshop: Workshop) -> Transport:
    """The transport of a provider, which nothing has been sent through yet."""
    kind = KINDS[opened.kind]
    settings = msgspec.convert(opened.settings, kind.settings)
    return kind.make(opened, settings, workshop)


def checked(
    kind_name: str, settings: Mapping[str, Any], secrets: Mapping[str, str]
) -> dict[str, Any]:
    """Settings of a provider, whole, as they are stored. Raises InvalidInput naming the field."""
    kind = KINDS.get(kind_name)
    if kind is None:
        raise InvalidInput(f"a kind is one of {', '.join(KINDS)}", field="kind")
    try:
        # Not strict: pages and the command line have nothing but text, and 587 may be a name.
        converted = msgspec.convert(dict(settings), kind.settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        field = "settings" + (f".{where.rstrip('`')}" if where else "")
        raise InvalidInput(f"{kind_name}: {what}", field=field) from None
    _check_secrets(kind_name, kind, secrets)
    if kind.check is not None:
        kind.check(converted, frozenset(secrets))
    stored: dict[str, Any] = msgspec.to_builtins(converted)
    return stored


def _check_secrets(name: str, kind: Kind, secrets: Mapping[str, str]) -> None:
    known = (*kind.secrets, *kind.more_secrets)
    for given, value in secrets.items():
        if given not in known:
            takes = ", ".join(known) or "none"
            raise InvalidInput(
                f"{name} has no secret {given[:60]!r}; it takes {takes}", field="secrets"
            )
        printable = value.isascii() and value.isprintable()
        if not 0 < len(value) <= SECRET_CHARACTERS or not printable:
            raise InvalidInput(
                f"a secret has 1 to {SECRET_CHARACTERS} printable ASCII characters",
                field=f"secrets.{given}",
            )
    for wanted in kind.secrets:
        if wanted not in secrets:
            raise InvalidInput(f"{name} needs it", field=f"secrets.{wanted}")


# SMTP and files.


def _check_smtp(settings: SmtpSettings, secrets: frozenset[str]) -> None:
    signs_in = bool(settings.username or secrets)
    if signs_in and settings.tls in ("none", "opportunistic"):
        raise InvalidInput(
            "a password goes over TLS alone: take starttls or on_connect", field="settings.tls"
        )
    if signs_in and not settings.verify:
        raise InvalidInput(
            "a password goes to a verified server alone: take verify true",
            field="settings.verify",
        )
    if not signs_in:
        return
    if not settings.username:
        raise InvalidInput("whose secret is it? name the user", field="settings.username")
    if settings.auth != "xoauth2":
        if secrets != {"password"}:
            raise InvalidInput("plain and login take a password", field="secrets.password")
    elif "access_token" not in secrets and not (
        settings.token_url and settings.client_id and "refresh_token" in secrets
    ):
        raise InvalidInput(
            "xoauth2 takes an access_token, or a refresh_token with token_url and client_id",
            field="secrets.refresh_token",
        )


def _smtp(opened: Opened, settings: SmtpSettings, workshop: Workshop) -> Transport:
    from mailyard.net.tls import client_context
    from mailyard.protocol.smtp.client_mail import StartTls
    from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

    starttls = {
        "starttls": StartTls.REQUIRED,
        "on_connect": StartTls.REQUIRED,
        "opportunistic": StartTls.OPPORTUNISTIC,
        "none": StartTls.NONE,
    }[settings.tls]
    verify = settings.verify and starttls is StartTls.REQUIRED
    return SmtpTransport(
        name=opened.name,
        host=settings.host,
        port=settings.port,
        hello=workshop.hello,
        tls_context=client_context(verify=verify),
        options=SmtpOptions(
            connections=settings.connections,
            starttls=starttls,
            tls_on_connect=settings.tls == "on_connect",
        ),
        random=workshop.random,
        allowed=None if opened.shared else workshop.allowed,
        sign_in=_sign_in(opened, settings, workshop),
    )


def _sign_in(opened: Opened, settings: SmtpSettings, workshop: Workshop) -> "SignIn | None":
    from mailyard.protocol.smtp.client_auth import Login
    from mailyard.sending.transports.sign_in import Refreshed, Stored

    secrets = opened.secrets
    if not settings.username:
        return None
    if "password" in secrets or "access_token" in secrets:
        secret = secrets.get("password") or secrets["access_token"]
        return Stored(Login(settings.username, secret, settings.auth.upper()))
    return Refreshed(
        http=workshop.http(),
        clock=workshop.clock,
        token_url=settings.token_url,
        username=settings.username,
        client_id=settings.client_id,
        client_secret=secrets.get("client_secret", ""),
        refresh_token=secrets["refresh_token"],
    )


def _file(opened: Opened, settings: FileSettings, workshop: Workshop) -> Transport:
    from mailyard.sending.transports.file import FileTransport

    folder = workshop.data / "outgoing" / opened.workspace_id.hex / settings.folder
    return FileTransport(name=opened.name, folder=folder)


def _mx(opened: Opened, settings: MxSettings, workshop: Workshop) -> Transport:
    if workshop.own is None:
        raise ConfigurationError("this process has no own delivery")
    if settings.pool != OWN_POOL and not opened.shared:
        raise ConfigurationError(
            f"the pool {settings.pool!r} is for shared providers of the installation's operator; "
            f"this one may have {OWN_POOL!r}"
        )
    return workshop.own(opened.name, settings.pool)


# HTTP APIs.


def _over_http(opened: Opened, settings: _Http, workshop: Workshop, vendor: Any) -> Transport:
    from mailyard.sending.transports.http_provider import HttpProvider, ProviderOptions

    return HttpProvider(
        name=opened.name,
        vendor=vendor,
        http=workshop.http(),
        rate=workshop.rate,
        rate_key=f"provider:{opened.id.hex}",
        limit_name=ids.type_id(ids.PROVIDER, opened.id),
        options=ProviderOptions(in_flight=settings.in_flight, per_s=settings.per_s),
        clock=workshop.clock,
        random=workshop.random,
    )


def _at(settings: _Http) -> dict[str, str]:
    """The endpoint as an argument, when it is not the vendor's own."""
    return {"endpoint": settings.endpoint} if settings.endpoint else {}


def _ses(opened: Opened, settings: SesSettings, workshop: Workshop) -> Transport:
    from mailyard.sending.transports.ses import Ses
    from mailyard.sending.transports.sigv4 import AwsCredentials

    credentials = AwsCredentials(
        settings.access_key_id,
        opened.secrets["secret_access_key"],
        opened.secrets.get("session_token", ""),
    )
    vendor = Ses(
        region=settings.region,
        credentials=credentials,
        configuration_set=settings.configuration_set,
        endpoint=settings.endpoint,
    )
    return _over_http(opened, settings, workshop, vendor)


def _sendgrid(opened: Opened, settings: SendgridSettings, workshop: Workshop) -> Transport:
    from mailyard.sending.transports.sendgrid import SendGrid

    vendor = SendGrid(key=opened.secrets["api_key"], **_at(settings))
    return _over_http(opened, settings, workshop, vendor)


def _postmark(opened: Opened, settings: PostmarkSettings, workshop: Workshop) -> Transport:
    from mailyard.sending.transports.postmark import Postmark

    vendor = Postmark(token=opened.secrets["server_token"], stream=settings.stream, **_at(settings))
    return _over_http(opened, settings, workshop, vendor)


def _mailgun(opened: Opened, settings: MailgunSettings, workshop: Workshop) -> Transport:
    from mailyard.sending.transports.mailgun import Mailgun

    vendor = Mailgun(domain=settings.domain, key=opened.secrets["api_key"], **_at(settings))
    return _over_http(opened, settings, workshop, vendor)


def _resend(opened: Opened, settings: ResendSettings, workshop: Workshop) -> Transport:
    from mailyard.sending.transports.resend import Resend

    vendor = Resend(key=opened.secrets["api_key"], **_at(settings))
    return _over_http(opened, settings, workshop, vendor)


KINDS: dict[str, Kind] = {
    "smtp": Kind(
        "SMTP relay",
        SmtpSettings,
        (),
        _smtp,
        ("password", "access_token", "refresh_token", "client_secret"),
        check=_check_smtp,
    ),
    "ses": Kind(
        "Amazon SES",
        SesSettings,
        ("secret_access_key",),
        _ses,
        ("session_token",),
        rewrites=True,
    ),
    "sendgrid": Kind("SendGrid", SendgridSettings, ("api_key",), _sendgrid),
    "postmark": Kind("Postmark", PostmarkSettings, ("server_token",), _postmark),
    "mailgun": Kind("Mailgun", MailgunSettings, ("api_key",), _mailgun),
    "resend": Kind("Resend", ResendSettings, ("api_key",), _resend),
    "mx": Kind("Own delivery to MX", MxSettings, (), _mx, of_operator=True),
    "file": Kind("Folder (development)", FileSettings, (), _file, of_operator=True),
}
