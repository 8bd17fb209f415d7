"""Tests of the sizes and the folders of the code: small modules, small functions, one place for each purpose."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support import ROOT

PACKAGE = ROOT / "plugin" / "session_history"
CONTRACT = ROOT / "hooks" / "session_history_hooks"
PROVIDERS = PACKAGE / "providers"

FOLDERS = {"config", "handlers", "log", "providers", "records", "runtimes", "tools", "turns", "view", "wrappers"}
MODULES = {"__init__", "configured", "errors", "presets", "service", "session", "version"}

LINES_OF_CORE = 250
LINES_OF_PROVIDER = 300
LINES_OF_SERVICE = 400
"""The public verbs with their docstrings and overloads stand together in one module."""

LINES_OF_FUNCTION = 45

NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

SOURCES = sorted([*PACKAGE.rglob("*.py"), *CONTRACT.rglob("*.py")])

Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the lines of all docstrings: of modules, classes and functions, and below attributes."""
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node.value)]
    return {line for text in texts for line in range(text.lineno, (text.end_lineno or text.lineno) + 1)}


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@cache
def code_lines(source: str) -> set[int]:
    """Return the lines that hold code, without docstrings, comments and blank lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return held - docstring_lines(ast.parse(source))


def limit(path: Path) -> int:
    if path == PACKAGE / "service.py":
        return LINES_OF_SERVICE
    return LINES_OF_PROVIDER if path.is_relative_to(PROVIDERS) else LINES_OF_CORE


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of code lines of each function of a module."""
    source = path.read_text(encoding="utf-8")
    lines = code_lines(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield node.name, sum(line in lines for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ('"""Module."""\n\nx = 1  # a reason\n# another\n', 1),
        ('def f():\n    """Function.\n\n    More.\n    """\n    return 1\n', 2),
        ('x = """a\nb\n"""\n', 3),
        ('x = 1\n"""What it is."""\n', 1),
        ("x = [\n    1,\n\n    2,\n]\n", 4),
    ],
)
def test_code_lines_leave_out_docstrings_comments_and_blank_lines(source: str, lines: int) -> None:
    assert len(code_lines(source)) == lines


def test_modules_are_short() -> None:
    sizes = {path: len(code_lines(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {place(path): size for path, size in sizes.items() if size > limit(path)} == {}


def test_functions_are_short() -> None:
    found = {f"{place(path)} {name}": size for path in SOURCES for name, size in functions(path)}
    assert {name: size for name, size in found.items() if size > LINES_OF_FUNCTION} == {}


def test_package_has_the_folders_and_modules_of_the_layout() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert {path.name for path in entries if path.is_dir()} <= FOLDERS
    assert {path.stem for path in entries if path.suffix == ".py"} <= MODULES
