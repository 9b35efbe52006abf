"""Reading the book of receivers: the shipped file, and overrides that are laid over it.

    [receiver.google]                  # an override names the same receiver, or a new one
    mx = ["google.com"]                # replaces the shipped list
    connections = 10
    without = ["unusual-rate"]         # leaves out shipped rules
    [[receiver.google.rule]]           # of a shipped rule's name: in its place; else in front
    name = "ours"
    code = ["421"]
    text = "try again"
    pause = "5 min"

Whatever is not understood stops with the file, the key, the value and what is allowed. Nothing is
guessed: a misspelt key would otherwise be a limit that nobody keeps.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from mailyard.core.errors import ConfigurationError
from mailyard.sending.shape import fields
from mailyard.sending.shape.fields import Spot
from mailyard.sending.shape.locate import line_of
from mailyard.sending.shape.receiver import DEFAULT, Book, Limits, Receiver
from mailyard.sending.shape.rule import Rule

SHIPPED = "receivers.toml"
FILE_BYTES_MAX = 1024 * 1024
RECEIVERS_MAX = 1_000
RULES_MAX = 100  # of one receiver; every refusal is compared with all of them

_LIMITS = {
    "connections": fields.whole(1, 1_000),
    "messages_per_connection": fields.whole(1, 100_000),
    "rate": fields.rate,
    "recover_every": fields.duration,
    "recover_step": fields.share,
}
_RECEIVER = {
    **_LIMITS,
    "mx": fields.names,
    "domains": fields.names,
    "shared": fields.flag,
    "source": fields.text,
    "checked": fields.day,
    "without": fields.rule_names,
    "rule": fields.tables,
}

Entry = dict[str, Any]  # the read keys of one receiver; "rule" is a list of Rule


def shipped_text() -> str:
    """The file that comes with the program."""
    return files(__package__).joinpath(SHIPPED).read_text("utf-8")


@cache
def shipped() -> Book:
    """The book without overrides."""
    return read_book([(SHIPPED, shipped_text())])


def read_book(layers: Iterable[tuple[str, str]]) -> Book:
    """The book of `layers`, each the name of a file and its text; later ones lie over earlier ones.

    Raises ConfigurationError naming the file, the line and the key.
    """
    texts = list(layers)
    try:
        return _read_book(texts)
    except ConfigurationError as error:
        raise _located(error, dict(texts)) from None


def _located(error: ConfigurationError, texts: Mapping[str, str]) -> ConfigurationError:
    file, colon, rest = error.message.partition(": ")
    line = line_of(texts[file], error.field) if colon and file in texts and error.field else None
    if line is None:
        return error
    return ConfigurationError(f"{file}, line {line}: {rest}", field=error.field)


def _read_book(layers: Iterable[tuple[str, str]]) -> Book:
    entries: dict[str, Entry] = {}
    origins: dict[str, str] = {}
    for file, text in layers:
        for name, entry in _read(file, text).items():
            spot = Spot(file, f"receiver.{name}")
            entries[name] = _laid_over(entries.get(name, {}), entry, spot)
            origins[name] = file
    if DEFAULT not in entries:
        raise ConfigurationError(f"no file of receivers has a [receiver.{DEFAULT}]")
    default = entries[DEFAULT]
    _check_default(default, Spot(origins[DEFAULT], f"receiver.{DEFAULT}"))
    _check_matches(entries, origins)
    return Book(_receiver(name, entry, default) for name, entry in entries.items())


def _read(file: str, text: str) -> dict[str, Entry]:
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file} is longer than {FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    top = fields.read_table(Spot(file, ""), table, {"receiver": fields.table_of_tables})
    receivers: Mapping[str, Any] = top.get("receiver", {})
    if len(receivers) > RECEIVERS_MAX:
        raise ConfigurationError(f"{file} has more than {RECEIVERS_MAX} receivers")
    return {name: _read_receiver(file, name, value) for name, value in receivers.items()}


def _read_receiver(file: str, name: str, value: Mapping[str, Any]) -> Entry:
    spot = Spot(file, f"receiver.{name}")
    fields.check_name(spot, name)
    entry = fields.read_table(spot, value, _RECEIVER)
    rules = [
        fields.read_rule(spot.within(f"rule[{number}]"), rule)
        for number, rule in enumerate(entry.get("rule", []), 1)
    ]
    if len(rules) > RULES_MAX:
        raise spot.within("rule").wrong(f"{len(rules)} rules", f"at most {RULES_MAX}")
    for number, rule in enumerate(rules):
        if any(rule.name == other.name for other in rules[:number]):
            where = spot.within(f"rule[{number + 1}]").within("name")
            raise where.wrong(rule.name, "a name that no other rule of the receiver has")
    entry["rule"] = rules
    return entry


def _laid_over(below: Entry, above: Entry, spot: Spot) -> Entry:
    """`above` over `below`, key by key. Rules keep their order; new ones stand in front."""
    rules: list[Rule] = list(below.get("rule", []))
    for name in above.get("without", ()):
        if all(rule.name != name for rule in rules):
            known = ", ".join(rule.name for rule in rules) or "nothing: it has no rules below"
            raise spot.within("without").wrong(name, f"a rule that stands below: {known}")
        rules = [rule for rule in rules if rule.name != name]
    named = {rule.name: rule for rule in above["rule"]}
    kept = [named.pop(rule.name, rule) for rule in rules]
    merged = {**below, **above, "rule": [*named.values(), *kept]}
    merged.pop("without", None)
    return merged


def _check_default(default: Entry, spot: Spot) -> None:
    for key in _LIMITS:
        if key not in default:
            raise spot.within(key).wrong(None, "a value: the default has every limit")
    for key in ("mx", "domains", "shared"):
        if key in default:
            raise spot.within(key).wrong(default[key], "nothing: the default fits what is left")


def _check_matches(entries: Mapping[str, Entry], origins: Mapping[str, str]) -> None:
    """Every receiver fits something, and nothing fits two."""
    for key in ("mx", "domains"):
        owners: dict[str, str] = {}
        for name, entry in entries.items():
            spot = Spot(origins[name], f"receiver.{name}").within(key)
            for one in entry.get(key, ()):
                if owners.setdefault(one, name) != name:
                    raise spot.wrong(one, f"a name that [receiver.{owners[one]}] has not")
    for name, entry in entries.items():
        if name != DEFAULT and not entry.get("mx") and not entry.get("domains"):
            spot = Spot(origins[name], f"receiver.{name}")
            raise spot.within("mx").wrong(None, "names of MX sites here, or in domains")


def _receiver(name: str, entry: Entry, default: Entry) -> Receiver:
    every: Entry = {**{key: default[key] for key in _LIMITS}, **entry}
    rules: list[Rule] = list(entry["rule"])
    if name != DEFAULT:
        rules += [replace(rule, name=f"{DEFAULT}/{rule.name}") for rule in default["rule"]]
    checked: date | None = entry.get("checked")
    return Receiver(
        name=name,
        mx=tuple(entry.get("mx", ())),
        domains=tuple(entry.get("domains", ())),
        shared=entry.get("shared", False),
        limits=Limits(
            connections=every["connections"],
            messages_per_connection=every["messages_per_connection"],
            rate=every["rate"],
            recover_every_s=every["recover_every"],
            recover_step=every["recover_step"],
        ),
        rules=tuple(rules),
        source=entry.get("source", ""),
        checked=checked,
    )
