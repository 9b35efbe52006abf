"""All processes of an installation have the same master key, or they do not start."""

import asyncio
from pathlib import Path

import pytest

from mailyard.access.master_key import FILE_NAME, ensure_master_key, meet, new_master_key
from mailyard.core.errors import ConfigurationError
from mailyard.storage.database import Database


async def test_the_first_start_makes_the_key_and_later_ones_know_it(
    database: Database, tmp_path: Path
) -> None:
    await meet(database, "", tmp_path / "here")
    made = ensure_master_key(tmp_path / "here")
    await meet(database, "", tmp_path / "here")
    assert ensure_master_key(tmp_path / "here") == made


async def test_a_machine_with_no_key_is_told_to_bring_the_installations(
    database: Database, tmp_path: Path
) -> None:
    await meet(database, new_master_key(), tmp_path / "here")
    with pytest.raises(ConfigurationError, match=r"has no master key, .* set MAILYARD_MASTER_KEY"):
        await meet(database, "", tmp_path / "there")
    assert not (tmp_path / "there" / FILE_NAME).exists(), "no stray key is made"


async def test_a_machine_with_another_key_is_refused(database: Database, tmp_path: Path) -> None:
    await meet(database, new_master_key(), tmp_path)
    with pytest.raises(ConfigurationError, match="this machine has master key"):
        await meet(database, new_master_key(), tmp_path)


async def test_a_key_is_changed_without_a_stop(database: Database, tmp_path: Path) -> None:
    old, new = new_master_key(), new_master_key()
    for keys in (old, f"{new},{old}", old, f"{new},{old}", new):
        await meet(database, keys, tmp_path)


async def test_of_machines_that_start_at_once_one_decides(
    database: Database, tmp_path: Path
) -> None:
    outcomes = await asyncio.gather(
        *(meet(database, "", tmp_path / str(number)) for number in range(8)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(isinstance(one, ConfigurationError) for one in outcomes if one is not None)
    made = list(tmp_path.glob(f"*/{FILE_NAME}"))
    assert len(made) == 1
