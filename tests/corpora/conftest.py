"""The corpora: real and hostile data of public projects, in the folder MAILYARD_CORPORA.

They are no part of the project; without them these tests are skipped.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOT_DATA = ("SOURCE.md", "INDEX.tsv")


def corpora_folder() -> Path:
    given = os.environ.get("MAILYARD_CORPORA")
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "corpora"


@pytest.fixture(scope="session")
def corpora() -> Path:
    folder = corpora_folder()
    if not folder.is_dir():
        pytest.skip(f"no corpora at {folder}; set MAILYARD_CORPORA")
    return folder


def family_names(pattern: str) -> list[str]:
    """The families of the folder, for parametrising; one placeholder when there are none."""
    return sorted(path.name for path in corpora_folder().glob(pattern)) or ["none"]


def files_of(family: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every data file, whether it lies there or in an archive."""
    for path in sorted(family.rglob("*")):
        if not path.is_file() or path.name in NOT_DATA:
            continue
        if path.name.endswith(".tar.xz"):
            yield from _unpacked(path)
        else:
            yield str(path.relative_to(family)), path.read_bytes()


def _unpacked(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as members:
        for member in members:
            held = members.extractfile(member) if member.isfile() else None
            if held is not None:
                yield member.name, held.read()
