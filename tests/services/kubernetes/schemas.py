"""Schemas of Kubernetes' own objects for kubeconform, which is offline here: from the wheel of
kubernetes-validate, whose files refer to one of definitions that kubeconform does not follow.

usage: schemas.py WHEEL FOLDER
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any


def inlined(value: Any, definitions: dict[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """`value` with what it refers to in its place; a reference into itself allows anything."""
    if isinstance(value, list):
        return [inlined(one, definitions, inside) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        name = value["$ref"].rsplit("/", 1)[-1]
        return {} if name in inside else inlined(definitions[name], definitions, (*inside, name))
    return {
        key: inlined(one, definitions, inside)
        for key, one in value.items()
        if not (key == "description" and isinstance(one, str))
    }


def main(wheel: Path, folder: Path) -> None:
    version = wheel.name.split("-")[1]
    source = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict/"
    made = folder / f"v{version}-standalone-strict"
    made.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as packed:
        definitions = json.loads(packed.read(f"{source}_definitions.json"))["$defs"]
        for name in packed.namelist():
            file = name.removeprefix(source)
            if name.startswith(source) and "-" in file:
                schema = json.loads(packed.read(name))
                if "apiVersion" in schema.get("properties", {}):
                    (made / file).write_text(json.dumps(inlined(schema, definitions)))


main(Path(sys.argv[1]), Path(sys.argv[2]))
