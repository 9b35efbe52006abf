"""Secrets at rest open with their master key, in their row, unchanged, and not otherwise."""

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.access.master_key import (
    FILE_NAME,
    ensure_master_key,
    new_master_key,
    parse_master_keys,
)
from mailyard.access.vault import Vault
from mailyard.core.errors import ConfigurationError

OLD, NEW = b"o" * 32, b"n" * 32


@given(secret=st.binary(max_size=4096), subject=st.binary(max_size=64))
def test_what_was_sealed_opens_again(secret: bytes, subject: bytes) -> None:
    vault = Vault(lambda: [OLD])
    sealed = vault.seal(secret, subject)
    assert vault.open(sealed, subject) == secret
    if len(secret) > 4:
        assert secret not in sealed


def test_the_same_secret_never_looks_the_same() -> None:
    vault = Vault(lambda: [OLD])
    assert len({vault.seal(b"secret", b"row") for _ in range(100)}) == 100


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_of_it_can_be_changed(at: int, bit: int) -> None:
    vault = Vault(lambda: [OLD])
    sealed = bytearray(vault.seal(b"a private key", b"row 1"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(ConfigurationError):
        vault.open(bytes(sealed), b"row 1")


def test_it_does_not_open_in_another_row() -> None:
    vault = Vault(lambda: [OLD])
    with pytest.raises(ConfigurationError, match="another row"):
        vault.open(vault.seal(b"a private key", b"row 1"), b"row 2")


@pytest.mark.parametrize("damaged", [b"", b"\x01", b"\x02" + bytes(60), b"\x01" * 32])
def test_what_is_no_sealed_secret_is_said_to_be_damaged(damaged: bytes) -> None:
    with pytest.raises(ConfigurationError, match="damaged"):
        Vault(lambda: [OLD]).open(damaged, b"row")


def test_a_master_key_is_changed_in_three_steps() -> None:
    sealed = Vault(lambda: [OLD]).seal(b"a private key", b"row")

    both = Vault(lambda: [NEW, OLD])
    assert both.open(sealed, b"row") == b"a private key"
    assert sealed[1:5] != both.newest
    anew = both.seal(both.open(sealed, b"row"), b"row")
    assert anew[1:5] == both.newest

    only_new = Vault(lambda: [NEW])
    assert only_new.open(anew, b"row") == b"a private key"
    with pytest.raises(ConfigurationError, match="MAILYARD_MASTER_KEY") as caught:
        only_new.open(sealed, b"row")
    assert base64.b64encode(OLD).decode() not in str(caught.value)


def test_keys_are_read_newest_first_in_either_alphabet() -> None:
    first = base64.b64encode(b"\xff" * 32).decode()
    second = base64.urlsafe_b64encode(b"\xfe" * 32).decode()
    assert parse_master_keys(f"{first}, {second},") == [b"\xff" * 32, b"\xfe" * 32]


@pytest.mark.parametrize("text", ["x", "????", base64.b64encode(b"short").decode()])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a master key"):
        parse_master_keys(text)


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    made = ensure_master_key(folder)
    assert ensure_master_key(folder) == made
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_processes_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ensure_master_key(tmp_path)[0], range(32)))
    assert len(set(made)) == 1


def test_a_second_line_in_the_file_is_an_older_key(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(f"{new_master_key()}\n{new_master_key()}\n")
    assert len(ensure_master_key(tmp_path)) == 2


@pytest.mark.parametrize("content", ["", "\n", "not a key\n", "\xe4"])
def test_a_file_without_a_key_is_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content, "latin-1")
    with pytest.raises(ConfigurationError, match="restore"):
        ensure_master_key(tmp_path)
    assert (tmp_path / FILE_NAME).read_text("latin-1") == content


def test_each_purpose_has_keys_of_its_own_from_every_master_key() -> None:
    vault = Vault(lambda: [NEW, OLD])
    links, returns = vault.keys_for("link"), vault.keys_for("return-path")
    assert len({*links, *returns, NEW, OLD}) == 6
    assert all(len(key) == 32 for key in links)
    assert Vault(lambda: [OLD]).keys_for("link") == (links[1],)
