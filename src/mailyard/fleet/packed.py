"""What is packed with the program as TOML, under a file of the operator's own."""

import tomllib
from importlib.resources import files
from typing import Any

from mailyard.core.errors import ConfigurationError


def packed_tables(
    package: str, file: str, own: str, name: str, gone: str
) -> dict[str, dict[str, Any]]:
    """The tables of `file` in `package`, values of the text `own` in the place of theirs.

    `gone` = true in a table removes it. Raises ConfigurationError naming `name`.
    """
    tables = tomllib.loads(files(package).joinpath(file).read_text("utf-8"))
    try:
        given = tomllib.loads(own)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is not TOML: {error}") from error
    for key, table in given.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{name}: {key} must be a table, as [{key}]")
        if table.get(gone) is True:
            tables.pop(key, None)
        else:
            tables[key] = {**tables.get(key, {}), **table}
    return tables
