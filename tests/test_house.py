# SPDX-License-Identifier: GPL-2.0-only
"""The house: how long a module and a function may be, and that no sentence is read back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from anonvma.base import paths
from anonvma.probe import vma_kinds
from anonvma.run import vocabulary

PACKAGE = paths.root() / "analysis" / "anonvma"
MODULES = sorted(PACKAGE.rglob("*.py"))

LONGEST_MODULE, LONGEST_FUNCTION = 400, 60


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring, which may say much of little code."""
    whole = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        whole -= (first.end_lineno or 0) - first.lineno + 1
    return whole


def too_long(source: str) -> list[str]:
    """What is longer than it may be."""
    found = []
    if (count := len(source.splitlines())) > LONGEST_MODULE:
        found.append(f"{count} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = lines_of(node)
            if count > LONGEST_FUNCTION:
                found.append(f"{node.name}: {count} lines")
    return found


def test_no_module_is_longer_than_400_lines_and_no_function_than_60() -> None:
    found = {name_of(module): too_long(module.read_text()) for module in MODULES}
    found = {name: what for name, what in found.items() if what}
    assert found == {}


def test_that_test_finds_what_is_too_long() -> None:
    assert too_long("x = 1\n" * 400) == []
    assert too_long("x = 1\n" * 401) == ["401 lines"]
    body = "    x = 1\n"
    assert too_long("def f():\n" + 59 * body) == []
    assert too_long("def f():\n" + 60 * body) == ["f: 61 lines"]
    assert too_long('def f():\n    """One.\n\n    Two.\n    """\n' + 59 * body) == []


# ---- no sentence is read back ----

READS_ANOTHER_PROGRAM = {
    "collect/environment.py": "/proc/cpuinfo",
    "perf/stat_file.py": "perf stat",
    "perf/stat_lines.py": "perf stat",
    "perf/tool.py": "perf stat",
    "study/store.py": "DuckDB's errors",
    "target/guest.py": "QEMU's log",
    "target/ssh_connection.py": "OpenSSH's errors",
}
"""Modules that read what another program prints, which has no other form."""

VOCABULARY = {
    *vma_kinds.NOTES,
    *vma_kinds.ORIGINS,
    *vocabulary.STATES,
    *vocabulary.CONTEXTS,
    vocabulary.PAGE_FAULT,
}
"""Values of the tables' columns that have two words: they are data."""

SAID = {"title", "caption", "note", "notes", "paragraphs", "reason", "remedy", "sentences"}
"""What attributes with sentences are called."""
SAID_COLUMNS = {"why", "evidence", "explain", "missing"}
"""What columns of sentences are called; one without is null."""

METHODS = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition"),
    *("find", "rfind", "index", "rindex", "replace", "split", "rsplit", "contains", "match"),
    *("search", "fullmatch", "findall", "compile", "sub", "finditer"),
}
PROSE = re.compile(r"[A-Za-z][,;:.]? [A-Za-z]|^[A-Z][a-z]+: ?$")


def prose_in(node: ast.AST) -> Iterator[str]:
    """The strings below a node that read like a piece of a sentence."""
    for each in ast.walk(node):
        text = each.value if isinstance(each, ast.Constant) else None
        if isinstance(text, str) and PROSE.search(text) and text not in VOCABULARY:
            yield text


def is_said(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr=name):
            return name in SAID
        case ast.Subscript(slice=ast.Constant(value=name)):
            return name in SAID_COLUMNS
    return False


def is_read(node: ast.AST) -> bool:
    """Whether an expression compares, searches or takes apart what was written for a reader."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            if all(isinstance(op, ast.Is | ast.IsNot) for op in ops):
                return False
            return any(is_said(side) or any(prose_in(side)) for side in (left, *others))
        case ast.Call(func=ast.Attribute(value=owner, attr=name), args=args):
            if name not in METHODS or ast.unparse(owner) == "dataclasses":
                return False
            cell = isinstance(owner, ast.Subscript) and any(prose_in(owner.slice))
            return cell or is_said(owner) or any(any(prose_in(each)) for each in args[:1])
        case ast.Subscript(slice=key):
            # A column may have two words; what begins like a heading, or has a comma, is a caption.
            return any(prose[0].isupper() or "," in prose for prose in prose_in(key))
    return False


def reads_prose(tree: ast.AST) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if is_read(node))


def test_nothing_is_learnt_from_a_sentence_a_title_or_a_note() -> None:
    found = [
        f"{name_of(module)}: {ast.unparse(node)}"
        for module in MODULES
        if name_of(module) not in READS_ANOTHER_PROGRAM
        for node in reads_prose(ast.parse(module.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'part.title == "What changed"',
        "part.title in wanted",
        'text.startswith("Not here")',
        '"took turns" in note',
        'rows["of these, left it bare"]',
        'lacking.reason.removesuffix(".")',
        're.search("no such file", said)',
        'table["what"].str.contains("left bare")',
        'table["why"] != UNEXPLAINED',
        'row["evidence"].startswith(word)',
        """row["wait ms"].replace(">", "and")""",
    ],
)
def test_that_test_finds_a_sentence_that_is_read(source: str) -> None:
    assert list(reads_prose(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["part.key is Key.CHANGED", 'run["class"] == "zero-page"', 'x["origin"] == "thread stack"'],
)
def test_data_may_be_compared(source: str) -> None:
    assert not list(reads_prose(ast.parse(source)))
