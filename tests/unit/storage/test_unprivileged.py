"""Who runs PostgreSQL."""

import os
import pwd
from pathlib import Path

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.storage.unprivileged import choose_identity


def test_a_user_without_a_name_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(
        ConfigurationError, match=r"user 10001 has no name .* MAILYARD_DATABASE_URL"
    ):
        choose_identity(Path("/bin/true"), tmp_path)
