"""An answer without any model: by the words of the mail, at no cost, and nothing leaves the house.

It says little and says it truly: a summary is the mail's own first sentences, an indicator has its
quote, a field is filled only with what a rule has found and the schema's name asks for.
"""

# ruff: noqa: E501 (words of one meaning stand together)

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mailyard.analysis.schema import violation
from mailyard.analysis.shown import seen
from mailyard.analysis.task import QUOTE_CHARACTERS, SUMMARY_CHARACTERS, Ask
from mailyard.protocol.meaning.finding import Findings
from mailyard.protocol.meaning.letter import Letter
from mailyard.protocol.meaning.link import all_urls
from mailyard.protocol.meaning.words import TABLES, Lexicon, words_of

NAME = "rules"
_TABLE = TABLES["analysis"]
_URGENT = Lexicon(_TABLE["urgent"], _TABLE["urgent_scripts"])
_ANGRY = Lexicon(_TABLE["angry"])
_GLAD = Lexicon(_TABLE["glad"])
_READ_CHARACTERS = 4_000
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_RUNNABLE = re.compile(
    r"\.(?:exe|scr|com|pif|bat|cmd|vbs?|vbe|jse?|wsf|wsh|hta|lnk|ps1|msi|jar|iso|img|cpl|reg"
    r"|docm|xlsm)$",
    re.IGNORECASE,
)
_ORDERS = re.compile(
    r"(?:ignore|disregard|forget|override|bypass)\s+(?:\w+\s+){0,3}(?:previous|prior|above|earlier|all|any|your)"
    r"(?:\s+\w+){0,3}\s+(?:instruction|prompt|rule|guideline|direction|message|polic)\w*"
    r"|(?:ignoriere|vergiss|missachte)\w*\s+(?:\w+\s+){0,4}(?:anweisung|regel|vorgabe)\w*"
    r"|ignor(?:ez|e|a|ar|are)\s+(?:\w+\s+){0,4}(?:instruc|istruz|consigne|règle|regla|regole|instruç)\w*"
    r"|(?:negeer|zignoruj|ignoruj|игнорируй|забудь|проигнорируй)\w*\s+(?:\w+\s+){0,4}(?:instruct|polece|instrukc|инструкц|указан|pokyn)\w*"
    r"|忽略(?:之前|以上|所有|先前)?.{0,8}(?:指令|指示|提示)|(?:以前|上記|これまで)の?(?:指示|命令).{0,6}無視|이전.{0,6}(?:지시|명령).{0,6}무시"
    r"|(?:you are now|act as|pretend to be)\s+(?:a|an|the|in)?\s*\w+|system\s*prompt|developer\s+mode|jailbreak"
    r"|(?:as|dear)\s+(?:an?\s+)?(?:ai|llm|language model|assistant)\b|<\|?\s*(?:im_start|system|endoftext)"
    r"|\[/?INST\]|<<SYS>>|\bBEGIN\s+(?:SYSTEM|ADMIN)|(?:new|updated)\s+instructions?\s*:",
    re.IGNORECASE,
)
_SECRETS = re.compile(
    r"(?:confirm|verify|update|enter|send|provide|bestätig|aktualisier|confirmez|vérifiez|confirme|verifi[cq])\w*\s+(?:\w+\s+){0,3}"
    r"(?:password|passwort|kennwort|credential|card\s+(?:number|details)|pin|social security|bank\s+details|mot de passe|contraseña|password|senha)",
    re.IGNORECASE,
)
_THREAT = re.compile(
    r"(?:account|konto|compte|cuenta|conto|mailbox|postfach)\s+(?:\w+\s+){0,4}(?:suspend|block|clos|limit|lock|deactivat|gesperrt|deaktiviert|suspendu|bloqu|sospes)\w*"
    r"|within\s+(?:24|48|12)\s+hours|innerhalb\s+von\s+(?:24|48)\s+stunden|final\s+(?:notice|warning)|letzte\s+mahnung|legal\s+action",
    re.IGNORECASE,
)
_MONEY = re.compile(
    r"gift\s?cards?|wire\s+transfer|western\s+union|bitcoin|crypto\s?wallet|new\s+bank\s+(?:account|details)|"
    r"geänderte\s+bankverbindung|neue\s+bankverbindung|überweis\w+\s+(?:\w+\s+){0,3}(?:sofort|heute|umgehend)",
    re.IGNORECASE,
)


def answer(ask: Ask, letter: Letter, findings: Findings) -> dict[str, Any]:
    """The answer to an ask, of its schema. Never raises."""
    makers: dict[str, Callable[[], Any]] = {
        "category": lambda: _judged(_category(letter, findings)),
        "urgency": lambda: _urgency(letter),
        "sentiment": lambda: _sentiment(findings),
        "summary": lambda: _summary(letter, findings),
        "phishing": lambda: phishing(letter),
        "suggested_answer": lambda: None,
    }
    out: dict[str, Any] = {aspect: makers[aspect]() for aspect in ask.aspects}
    schema = ask.fields_schema
    if schema is not None:
        out["fields"] = _fields(schema, findings)
    return out


def _judged(value: str, quote: str | None = None) -> dict[str, Any]:
    return {"value": value, "quote": quote}


def _category(letter: Letter, findings: Findings) -> str:
    """What was found says what it is; what was not is `other`."""
    subject = letter.subject.lower()
    if findings.codes or any(
        one.purpose in ("sign_in", "reset", "confirm") for one in findings.links
    ):
        return "sign_in"
    if findings.parcels:
        return "delivery"
    for order in findings.orders:
        return {"order": "order", "invoice": "invoice", "booking": "booking"}.get(
            order.kind, "support"
        )
    if subject.startswith(
        ("automatic reply", "auto:", "out of office", "abwesenheit", "réponse automatique")
    ):
        return "automatic_reply"
    if findings.unsubscribe:
        return "newsletter"
    return "other"


def _urgency(letter: Letter) -> dict[str, Any]:
    for text in (letter.subject, letter.body[:_READ_CHARACTERS]):
        for start, end in [*_URGENT.among(words_of(text)), *_URGENT.scripted(text)]:
            return _judged("high", text[start:end])
    return _judged("normal")


def _sentiment(findings: Findings) -> dict[str, Any]:
    text = findings.reply.text[:_READ_CHARACTERS]
    words = words_of(text)
    angry, glad = list(_ANGRY.among(words)), list(_GLAD.among(words))
    if len(angry) > len(glad):
        return _judged("negative", text[angry[0][0] : angry[0][1]])
    if len(glad) > len(angry):
        return _judged("positive", text[glad[0][0] : glad[0][1]])
    return _judged("neutral")


def _summary(letter: Letter, findings: Findings) -> str:
    """The first sentences of what the writer wrote, as they stand."""
    text = " ".join(seen(findings.reply.text[:_READ_CHARACTERS]).split()) or letter.subject
    taken = ""
    for found in _SENTENCE.finditer(text):
        if taken and len(taken) + len(found[0]) > SUMMARY_CHARACTERS // 2:
            break
        taken += found[0]
        if len(taken) > SUMMARY_CHARACTERS // 3:
            break
    return taken.strip()[:SUMMARY_CHARACTERS]


# Signs of deceit ----------------------------------------------------------------------------------


def phishing(letter: Letter) -> list[dict[str, str]]:
    """The signs that rules see, each with its quote."""
    found: list[dict[str, str]] = []

    def sign(kind: str, quote: str) -> None:
        clean = " ".join(seen(quote).split())[:QUOTE_CHARACTERS].strip()
        one = {"kind": kind, "quote": clean}
        if clean and one not in found and len(found) < 10:
            found.append(one)

    text = letter.body[:20_000]
    for kind, pattern in (
        ("instructions_to_machines", _ORDERS),
        ("asks_for_secrets", _SECRETS),
        ("threat_or_hurry", _THREAT),
        ("asks_for_money", _MONEY),
    ):
        for part in (letter.subject, text):
            match = pattern.search(part)
            if match is not None:
                sign(kind, match[0])
                break
    _sign_links(letter, sign)
    for name in letter.files[:20]:
        if _RUNNABLE.search(name):
            sign("dangerous_file", name)
    writer = letter.from_[0] if letter.from_ else None
    if writer is not None and letter.reply_to:
        back = letter.reply_to[0].address
        if _site(back.rpartition("@")[2]) != _site(writer.address.rpartition("@")[2]):
            sign("answer_goes_elsewhere", back)
    if writer is not None and "@" in writer.name:
        named = writer.name.strip("<> \"'").lower()
        if named != writer.address.lower():
            sign("sender_is_not_who_he_says", writer.name)
    return found


def _sign_links(letter: Letter, sign: Callable[[str, str], None]) -> None:
    for url, label, _ in all_urls(letter)[:100]:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            continue
        shown = re.search(r"(?:https?://|www\.)?((?:[\w-]+\.)+[a-z]{2,})", label.strip().lower())
        if shown is not None and " " not in label.strip() and _site(shown[1]) != _site(host):
            sign("link_says_another_place", label)
        words = label if label else url
        if re.fullmatch(r"[\d.]+|\[.*\]|\d{8,}", host):
            sign("link_to_a_number", words)
        if "xn--" in host or not host.isascii():
            sign("lookalike_name", words)


def _site(host: str) -> str:
    """The last two labels: near enough to one's own other names."""
    return ".".join(host.lower().rstrip(".").split(".")[-2:])


# The caller's fields ------------------------------------------------------------------------------


def _fields(schema: Mapping[str, Any], findings: Findings) -> Any:
    """An object of the schema with what rules know, or None when it wants more than that."""
    out: dict[str, Any] = {}
    for name, of in schema["properties"].items():
        for value in _known(name, findings):
            if violation(value, of) is None:
                out[name] = value
                break
        else:
            if violation(None, of) is None:
                out[name] = None
    return out if violation(out, schema) is None else None


def _known(name: str, findings: Findings) -> list[Any]:
    """Values that a field of this name could mean, as text and as number."""
    lower = name.lower()
    texts: list[str] = []
    for words, values in (
        (("code", "otp", "pin"), [one.value for one in findings.codes]),
        (("tracking", "parcel", "shipment"), [one.number for one in findings.parcels]),
        (("order", "invoice", "booking", "ticket", "number"), [
            one.number for one in findings.orders if one.kind in lower or lower == "number"
        ]),
        (("amount", "total", "price", "sum"), [one.value for one in findings.amounts]),
        (("currency",), [one.currency for one in findings.amounts]),
        (("date", "day", "due", "deadline"), [one.value for one in findings.days]),
        (("link", "url"), [one.url for one in findings.links]),
        (("reply", "text", "message"), [findings.reply.text]),
    ):  # fmt: skip
        if any(word in lower for word in words):
            texts += values
    found: list[Any] = list(texts)
    for text in texts:
        try:
            found.append(float(text))
        except ValueError:
            continue
    return found
