"""Who works at the database itself has a name in the audit log, whatever the machine knows."""

import getpass
import os
from uuid import UUID

import pytest

from mailyard.cli.operator import operator


@pytest.mark.parametrize("error", [KeyError("uid not found: 10001"), OSError("No username set")])
def test_a_user_without_a_name_has_his_number(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that runs as a number alone."""

    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    actor = operator(UUID(int=7))
    assert (actor.kind, actor.workspace_id) == ("command", UUID(int=7))
    assert actor.name.startswith(f"uid-{os.geteuid()}@")


def test_a_user_with_a_name_has_his_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert operator(UUID(int=7)).name.startswith("ada@")
