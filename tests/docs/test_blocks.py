"""Tests of all blocks of code on the pages: also those that cannot be run say nothing wrong that a program can see."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.test_docs import PAGES, name
from support import ROOT

FENCE = re.compile(r"^( *)(```+|~~~+)(\S*) *\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)

LANGUAGES = {"console", "ini", "json", "py", "python", "sh", "text", "toml", "{eval-rst}", "{toctree}"}

NOT_RUN = {
    "docs/how-to/agentscope-app.md": "AgentScope 1, beside which AgentScope 2 cannot be installed",
    "docs/how-to/migration.md": "AgentScope 1, and a service that is no more",
    "docs/how-to/writing-a-provider.md": "parts of the example and of the contract, compared by a test of the page",
    "docs/reference/postgresql.md": "run by test_py_blocks",
    "docs/reference/tablestore.md": "run by test_py_blocks",
    "docs/zh/migration.md": "as the English page",
}
"""Pages with blocks of the language ``py``, which the tests of examples do not run, each with the reason."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
VARIABLES = re.compile(r"SESSION_HISTORY_(URL|CONFIG|OPTION_(<NAME>|[A-Z_]+)|TEST_[A-Z_]+)")


class Block(NamedTuple):
    indent: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(indent, language, text) for indent, _, language, text in found]


def flaws(blocks: list[Block]) -> list[str]:
    """Return what is wrong with the blocks of a page."""
    found = []
    for block in blocks:
        if block.language not in LANGUAGES:
            found.append(f"the language {block.language!r} is not one of {sorted(LANGUAGES)}")
        if block.indent and block.language != "sh":
            found.append("a block begins at the margin")
        if block.language == "console" and not block.text.startswith("$ "):
            found.append("a block of commands begins with `$ `")
        try:
            check(block)
        except (SyntaxError, ValueError) as error:  # those of TOML and JSON are ValueErrors
            found.append(str(error))
    return found


def check(block: Block) -> None:
    """Read a block. :raises ValueError: it has no valid syntax."""
    if block.language in {"py", "python"}:
        compile(block.text, "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_of_a_page_are_valid(page: Path) -> None:
    found = blocks(page)
    if page.name == "writing-a-provider.md":  # another test compares its parts, which may be signatures without a body
        found = [block for block in found if block.language != "py"]
    assert flaws(found) == []


@pytest.mark.parametrize(
    "text",
    [
        "```py\nf(\n```\n",
        "```toml\na == b\n```\n",
        "```json\n{a}\n```\n",
        "```pycon\n>>> 1\n```\n",
        "- x\n  ```text\n  1\n  ```\n",
        "```console\nno command\n```\n",
        "~~~python3\n1\n~~~\n",
    ],
)
def test_block_that_is_not_valid_is_found(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert len(flaws(blocks(page))) == 1


def test_blocks_that_are_not_run_have_a_reason() -> None:
    assert {name(page) for page in PAGES if any(block.language == "py" for block in blocks(page))} == set(NOT_RUN)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_on_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    extras = {extra for names in re.findall(r"session-history\[([\w,-]+)\]", text) for extra in names.split(",")}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    commands = "".join(block.text for block in blocks(page) if block.language in {"console", "sh"})
    assert [each for each in re.findall(r"SESSION_HISTORY_[A-Z_]+", commands) if not VARIABLES.fullmatch(each)] == []
    assert set(re.findall(r"^(?:\$ )?make ([\w-]+)", commands, re.MULTILINE)) <= TARGETS
