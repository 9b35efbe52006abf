"""The cases of a port's contract, for adapters that need a service: one suite a port."""

import inspect
from types import ModuleType
from typing import Any


def cases_of(module: ModuleType, fixture: str) -> dict[str, Any]:
    """The tests of `module` that run on `fixture`, but for those about one adapter alone."""
    return {
        name: case
        for name, case in vars(module).items()
        if name.startswith("test_")
        and fixture in inspect.signature(case).parameters
        and not _names_an_adapter(case, fixture)
    }


def _names_an_adapter(case: Any, fixture: str) -> bool:
    return any(
        mark.name == "parametrize" and mark.args[0] == fixture
        for mark in getattr(case, "pytestmark", [])
    )
