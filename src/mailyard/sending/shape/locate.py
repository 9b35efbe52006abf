"""Which line of a TOML file a key stands on, for people who look for their mistake."""

import re

_TABLE = re.compile(r"\[([^\[\]]+)\]")
_ITEM = re.compile(r"\[\[([^\[\]]+)\]\]")
_KEY = re.compile(r"[\"']?([A-Za-z0-9_-]+)[\"']?\s*=")


def line_of(text: str, path: str) -> int | None:
    """The line (1 is the first) of `path`, as "receiver.google.rule[2].text"; of the table that it
    is missing in; None when there is neither."""
    found: dict[str, int] = {}
    items: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.split("#", 1)[0].strip() if line.lstrip().startswith("[") else line.strip()
        if item := _ITEM.fullmatch(stripped):
            name = _plain(item[1])
            items[name] = items.get(name, 0) + 1
            table = f"{name}[{items[name]}]"
        elif header := _TABLE.fullmatch(stripped):
            table = _plain(header[1])
        elif key := _KEY.match(stripped):
            found.setdefault(f"{table}.{key[1]}" if table else key[1], number)
            continue
        else:
            continue
        found.setdefault(table, number)
    while path:
        if path in found:
            return found[path]
        path = path.rpartition(".")[0]
    return None


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
