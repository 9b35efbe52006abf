"""What the documents name is there: commands with their options, files, tests, settings, links.

Only names are looked at. That a command does what is said of it is its own test's to show.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from mailyard.cli.main import COMMANDS
from mailyard.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = ROOT / "tests"
FOLDERS = ("tests/", "bench/", "docs/", "deploy/", "src/", "tools/")
# Of programs beside the platform: the client of the wheel, the clean clone that tests a release.
OTHER_SETTINGS = {
    "MAILYARD_CONFIG",
    "MAILYARD_FLEET_CACHE",
    "MAILYARD_TEST_DATABASE_URL",
    "MAILYARD_URL",
}
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|[\s(]|bin/)mailyard (?=-|[a-z-]+(?:\s|$))(.*)")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)")
_SETTING = re.compile(r"\bMAILYARD_[A-Z0-9_]*[A-Z0-9]\b(?!_?…)")
_WORD = re.compile(r"[A-Za-z0-9_]+")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(page: Path) -> Iterator[str]:
    """Each piece of code of a page: what stands in backticks, and lines set apart."""
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.split(" #")[0].strip()
        else:
            yield from _SPAN.findall(line)


def words(text: str) -> list[str]:
    """As a shell reads them; where a quote is open, by the spaces."""
    try:
        return shlex.split(text, comments=False)
    except ValueError:
        return text.split()


@cache
def command(module: str) -> Any:
    return typer.main.get_command(import_module(module).app)


def wrong_command(text: str) -> str:
    """What is wrong with `mailyard {text}`; empty: nothing."""
    given = words(re.split(r"[|<>;&]", text)[0])
    if not given or given[0].startswith("-"):
        return "" if given and given[0] in ("--help", "--version") else "it names no command"
    both = " ".join(given[:2])
    first = both if both in COMMANDS else given[0]
    if first not in COMMANDS:
        return f"there is no command {first}"
    found, rest = command(COMMANDS[first][0]), given[len(first.split()) :]
    group = getattr(found, "commands", {})
    if group and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        below = group.get(rest[0])
        if below is None:
            return f"{first} has no {rest[0]}; it has {', '.join(group)}"
        found, rest = below, rest[1:]
    known = {one for option in found.params for one in (*option.opts, *option.secondary_opts)}
    for one in rest:
        option = one.strip("[]").partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*", option) and option not in known | {"--help"}:
            return f"{found.name} has no {option}"
    return ""


def test_every_command_and_option_is_there() -> None:
    seen, wrong = 0, []
    for page in PAGES:
        for piece in code(page):
            match = _COMMAND.search(piece)
            if match is None or piece.startswith(("#", "{", "[")):
                continue
            seen += 1
            if said := wrong_command(match[1]):
                wrong.append(f"{name(page)}: {piece!r}: {said}")
    assert wrong == []
    assert seen > 150


def test_every_file_is_there() -> None:
    seen, wrong = 0, []
    for page in PAGES:
        for piece in code(page):
            for word in words(piece):
                path = word.rstrip(".,;:)").partition("::")[0]
                if not path.startswith(FOLDERS) or re.search(r"[…<>{}$=]", path):
                    continue
                seen += 1
                if not any(ROOT.glob(path.rstrip("/"))):
                    wrong.append(f"{name(page)}: {path}")
    assert wrong == []
    assert seen > 300


def test_every_link_leads_somewhere() -> None:
    wrong = [
        f"{name(page)}: {link}"
        for page in PAGES
        for link in _LINK.findall(page.read_text("utf-8"))
        if not (page.parent / link).exists()
    ]
    assert wrong == []


def test_every_setting_is_one() -> None:
    known = {f"MAILYARD_{one.name.upper()}" for one in fields(Settings)} | OTHER_SETTINGS
    wrong = {
        f"{name(page)}: {found}"
        for page in PAGES
        for found in _SETTING.findall(page.read_text("utf-8"))
        if found not in known
    }
    assert sorted(wrong) == []


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        found
        for page in PAGES
        for piece in code(page)
        for found in re.findall(r"(?:^|\s)make ([a-z-]+)", piece)
    }
    assert named <= targets, named - targets
    assert {"test", "test-fleet", "crash", "bench"} <= named


@cache
def names_in(file: Path) -> frozenset[str]:
    """What `-k` may go by: tests, cases of another module, what they are parametrized with."""
    found = {file.stem, file.parent.name}
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            for decorator in node.decorator_list:
                found |= {
                    one.value
                    for one in ast.walk(decorator)
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            cases = TESTS / f"{node.module}.py"
            found |= names_in(cases) if cases.exists() else set()
        elif isinstance(node, ast.Assign):  # a list of cases beside its test
            found |= {
                one.value
                for one in ast.walk(node)
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
    return frozenset(one.lower() for one in found)


def files_of(given: list[str]) -> list[Path]:
    files: list[Path] = []
    for path in given:
        place = ROOT / path.partition("::")[0]
        if place.is_dir():
            files += [*place.rglob("test_*.py")]
        else:
            files += [one for one in ROOT.glob(path.partition("::")[0]) if one.is_file()]
    return files


def test_every_choice_of_tests_chooses_some() -> None:
    seen, wrong = 0, []
    for page in PAGES:
        for piece in code(page):
            given = words(piece)
            if "-k" not in given or not given[0].endswith(("T", "pytest", "T=")):
                continue
            chosen = given[given.index("-k") + 1]
            paths = [one for one in given if one.startswith("tests/")]
            names = {one for file in files_of(paths) for one in names_in(file)}
            seen += 1
            for word in _WORD.findall(chosen):
                if word in ("and", "or", "not"):
                    continue
                if not any(word.lower() in one for one in names):
                    wrong.append(f"{name(page)}: {piece!r}: no test is named by {word!r}")
    assert wrong == []
    assert seen > 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("up --stage 2", ""),
        ("import history emails.csv --rejects bad.csv", ""),
        ("region takeover eu", "region has no takeover"),
        ("demo --recipient 5", "no --recipient"),
        ("dance", "there is no command dance"),
    ],
)
def test_a_wrong_name_is_found(text: str, said: str) -> None:
    found = wrong_command(text)
    assert (said in found) if said else found == ""
