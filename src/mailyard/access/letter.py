"""The mails that Mailyard writes in its own name: short, in plain words, with at most one link."""

from dataclasses import dataclass

_FOOT = "\n\n-- \nMailyard writes this because somebody gave your address. Answers are not read.\n"
_NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail of our own."""

    to: str
    subject: str
    text: str


def quoted(name: str) -> str:
    """A name that strangers chose, so that no mail program makes a link of it."""
    plain = "".join(letter if letter.isalnum() or letter in " '-&" else " " for letter in name)
    return " ".join(plain.split())[:_NAME_CHARACTERS] or "a workspace"


def sign_up(to: str, link: str, hours: int) -> Letter:
    text = f"""Hello,

somebody, you we hope, wants to use Mailyard with this address. If it was you, go on here:

{link}

The link works once, for {hours} hours. If it was not you, do nothing: without the link nothing
happens."""
    return Letter(to, "Your address for Mailyard", text + _FOOT)


def has_account(to: str, page: str) -> Letter:
    text = f"""Hello,

somebody, you we hope, wants to sign up at Mailyard with this address. There is an account for it
already. Sign in here, or ask for a new password there:

{page}

If it was not you, do nothing: nothing has changed."""
    return Letter(to, "You have an account at Mailyard", text + _FOOT)


def reset(to: str, link: str, minutes: int) -> Letter:
    text = f"""Hello,

somebody, you we hope, has forgotten the password of your account at Mailyard. You can set a new one
here:

{link}

The link works once, for {minutes} minutes. If it was not you, do nothing: your password stays as it
is."""
    return Letter(to, "A new password for Mailyard", text + _FOOT)


def password_changed(to: str, page: str) -> Letter:
    text = f"""Hello,

your password at Mailyard was changed, and you were signed out everywhere. If it was not you, ask
for a new one at once:

{page}"""
    return Letter(to, "Your password was changed", text + _FOOT)


def invitation(to: str, link: str, *, workspace: str, role: str, by: str, days: int) -> Letter:
    who = by if "@" in by else "Somebody"
    text = f"""Hello,

{who} asks you into the workspace "{quoted(workspace)}" at Mailyard, as {role}. To take it up:

{link}

The link works once, for {days} days. If you do not know what this is, do nothing."""
    return Letter(to, "An invitation to Mailyard", text + _FOOT)


def limit(to: str, *, kind: str, level: str, used: int, most: int, page: str) -> Letter:
    what = {"messages": "mails received", "sends": "recipients written to"}.get(kind, kind)
    if level == "hard":
        subject = f"The plan's {what} of the day are used up"
        then = "No more of it today: sending is answered with 402, and mail to you is put off."
    else:
        subject = f"The plan's {what} of the day are nearly used up"
        then = "At the limit, sending is answered with 402, and mail to you is put off."
    text = f"""Hello,

your workspace has used {used} of {most} {what} today (UTC). {then}
The next day begins at 00:00 UTC. What you use:

{page}"""
    return Letter(to, subject, text + _FOOT)
