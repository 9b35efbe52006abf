"""What the documents name is there: tests, commands, pages, and an answer for every arrow."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest
from _pytest.mark.expression import Expression

_ROOT = Path(__file__).parents[2]
_DOCS = sorted([_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md")])
_FLOWS = (_ROOT / "docs/FLOWS.md").read_text("utf-8")
_GUARANTEES = (_ROOT / "docs/GUARANTEES.md").read_text("utf-8")
_MAKEFILE = (_ROOT / "Makefile").read_text("utf-8")
_CODE = re.compile(r"`([^`\n]+)`")
_TEST_FILE = re.compile(r"(?<![\w/])tests/[\w./-]+")
_ARROW = re.compile(r"(?<![\w,.:#])([1-9])(?![\w,.:])")


def _is_test(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, functions) and node.name.startswith("test_")


@cache
def _names(path: Path) -> tuple[str, ...]:
    """The tests of a file or a folder, each with what pytest's -k looks at beside its name: the
    file, the folders, and the ids of parameters."""
    files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    names = []
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        places = " ".join(file.relative_to(_ROOT).parts)
        for node in ast.walk(tree):
            if _is_test(node):
                given = " ".join(ast.unparse(one) for one in node.decorator_list)
                names.append(f"{node.name} {places} {given}".lower())
            elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                shared = _ROOT / "tests" / f"{str(node.module).replace('.', '/')}.py"
                names += _names(shared)
    return tuple(names)


def _selects(expression: str, path: Path) -> bool:
    chosen = Expression.compile(expression)
    return any(
        chosen.evaluate(lambda word, name=name, **_: word.lower() in name) for name in _names(path)
    )


def _faults_of(code: str) -> list[str]:
    """What of a command is not there."""
    paths = []
    for found in _TEST_FILE.findall(code):
        path = _ROOT / found.rstrip("./")
        if path.exists():
            paths.append(path)
        else:
            return [f"{found}: no such file"]
    faults = []
    for name in re.findall(r"::(test_\w+)", code):
        if paths and not any(name in one.split()[0] for one in _names(paths[-1])):
            faults.append(f"{paths[-1].name} has no {name}")
    given = re.search(r'-k (?:"([^"]+)"|([\w]+))', code)
    if given and paths and not any(_selects(given[1] or given[2], path) for path in paths):
        faults.append(f"-k {given[1] or given[2]} chooses no test")
    faults += [
        f"make {target}: no such target"
        for target in re.findall(r"\bmake ([a-z][a-z-]*)", code)
        if not re.search(rf"^{target}:", _MAKEFILE, re.M)
    ]
    faults += [
        f"{bench}: no such file"
        for bench in re.findall(r"bench/\w+\.py", code)
        if not (_ROOT / bench).exists()
    ]
    return faults


@pytest.mark.parametrize("text", [_FLOWS, _GUARANTEES], ids=["flows", "guarantees"])
def test_every_test_and_command_that_is_named_exists(text: str) -> None:
    faults = [f"{code}: {fault}" for code in _CODE.findall(text) for fault in _faults_of(code)]
    assert faults == []


def test_a_name_without_its_file_is_a_test_all_the_same() -> None:
    everything = {one.split()[0] for one in _names(_ROOT / "tests")}
    named = re.findall(r"`…::(test_\w+)`", _FLOWS)
    assert len(named) >= 5
    assert [name for name in named if name not in everything] == []


def test_every_promise_has_its_command() -> None:
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in _GUARANTEES.splitlines()
        if line.startswith("| ") and not line.startswith(("| promise", "|---"))
    ]
    assert len(rows) > 100
    assert [row[0] for row in rows if len(row) < 2 or "`" not in row[-1]] == []


def _sections() -> list[tuple[str, str, list[list[str]]]]:
    """Title, picture and table's rows of each part of FLOWS.md that has both."""
    found = []
    for part in re.split(r"^##+ ", _FLOWS, flags=re.M)[1:]:
        title, _, body = part.partition("\n")
        picture = "\n".join(re.findall(r"^```\n(.*?)^```", body, re.M | re.S))
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in body.splitlines()
            if line.startswith("| ")
        ]
        if rows:
            found.append((title, picture, rows))
    return found


def _numbers(cell: str) -> set[str]:
    """The arrows that a row's first cell begins with."""
    found = re.match(r"(?:[1-9](?:, |\b))+", cell)
    return set(re.findall(r"[1-9]", found[0])) if found else set()


def test_each_arrow_says_what_a_crash_does() -> None:
    unanswered = {}
    for title, picture, rows in _sections():
        told = set[str]().union(*(_numbers(row[0]) for row in rows))
        drawn = {number for line in picture.splitlines() if re.search("[─►│]", line)
                 for number in _ARROW.findall(line)}  # fmt: skip
        if drawn - told:
            unanswered[title] = sorted(drawn - told)
    assert sum(1 for _, picture, _ in _sections() if picture) >= 8, "the flows are drawn"
    assert unanswered == {}


def test_each_arrow_names_a_test() -> None:
    bare = []
    for title, _, rows in _sections():
        head, *others = rows
        assert head[-1] == "shown by", f"{title}: the last column says what shows it"
        bare += [
            (title, row[0])
            for row in others
            if not re.search(r"`(tests/|…|make )|^the same|^above", row[-1])
        ]
    assert bare == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for file in _DOCS:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", file.read_text("utf-8")):
            inside = "://" not in target and not target.startswith("mailto:")
            if inside and not (file.parent / target).exists():
                broken.append((file.relative_to(_ROOT).as_posix(), target))
    assert broken == []


def test_decisions_have_a_number_each() -> None:
    numbers = [file.name[:4] for file in sorted((_ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
