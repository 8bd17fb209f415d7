"""Rules of prose that a program can check: ``python -m docs.prose [PATH ...]`` from the folder ``tests``.

The program reads docstrings, comments and texts of Python files, the names of tests, and the lines of Markdown pages.
In tests it skips texts that are no docstrings: they are data, and say what users and models say.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

ROOMS = (
    "hooks",
    "plugin",
    "examples",
    "tests",
    "docs",
    "README.md",
    "README.zh.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
)

FIRST_WORDS = {"how", "that", "what", "whatever", "whether", "which", "who", "whoever", "whom", "whose"}
"""A docstring begins with a verb or a noun phrase."""

BANNED = re.compile(
    r"\b(can not|who|whoever|whatever|anew|lest|is none|are none|by then|alone(?=[.,;:)]))\b", re.IGNORECASE
)

VAGUE_TEST = re.compile(
    r"test_(so|it|its|they|nobody|who|whoever|what|whatever|which|that|neither|nor|not|nothing|also|until|when|how|one)_"
)
"""A test is called after its subject, its condition and its result."""

LINE = 100
"""The widest line of a page, table rows included, in columns."""

CODE_LINE = 88
"""The widest line of an example on a page, in columns."""

UNBREAKABLE = re.compile(r"\s*([-*>] )?(?!\|)([!-~]+|!?\[[^]]*\]\([!-~]+\)[.,;:]?)")
"""A line that is one word, address or link, perhaps behind the mark of a list or a quotation."""


class Flaw(NamedTuple):
    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.text}"


def flaws(paths: list[Path]) -> Iterator[Flaw]:
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if "_build" in file.parts or file in (Path(__file__), TESTS / "docs" / "test_prose.py"):
                continue
            if file.suffix == ".py":
                yield from flaws_of_code(file)
            elif file.suffix == ".md":
                yield from flaws_of_page(file)


def flaws_of_code(path: Path) -> Iterator[Flaw]:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _flaws_of_docstring(path, node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and VAGUE_TEST.match(node.name):
            yield Flaw(path, node.lineno, f"the name {node.name} does not say its subject")
    texts = [*_comments(source), *(_docstrings(tree) if path.is_relative_to(TESTS) else _strings(tree))]
    for line, text in texts:
        for match in BANNED.finditer(text):
            yield Flaw(path, line + text.count("\n", 0, match.start()), f"{match.group()!r}")


def _flaws_of_docstring(
    path: Path, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
) -> Iterator[Flaw]:
    words = re.findall(r"[\w']+", ast.get_docstring(node) or "")
    if words and words[0].lower() in FIRST_WORDS:
        yield Flaw(path, node.body[0].lineno, f"a docstring begins with {words[0]!r}")


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the texts that are statements: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the texts of two words or more."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def width(line: str) -> int:
    """Return the columns that a line takes: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def flaws_of_page(path: Path) -> Iterator[Flaw]:
    chinese = path.name.endswith(".zh.md") or path.parent.name == "zh"
    free = path.is_relative_to(TESTS)
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        if not (free or UNBREAKABLE.fullmatch(line)) and width(line) > (CODE_LINE if fenced else LINE):
            yield Flaw(path, number, f"is {width(line)} columns wide")
        if not fenced and not chinese:
            for match in BANNED.finditer(line):
                yield Flaw(path, number, f"{match.group()!r}")


def main() -> int:
    paths = [Path(name).resolve() for name in sys.argv[1:]] or [ROOT / room for room in ROOMS]
    found = list(flaws(paths))
    print(*found, sep="\n")
    print(f"{len(found)} flaws")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
