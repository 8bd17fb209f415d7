"""``docs/reference/glossary.md`` names every term of the contract."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass

import pytest

import session_history_hooks
from session_history_hooks import Conflict
from support import ROOT

PAGE = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))
ROWS = re.findall(r"^\| `?([\w ]+?)`? \|", PAGE, re.MULTILINE)
WORDS = [
    "branch", "checkpoint", "conflict", "contract", "entry", "format", "generation", "head", "heartbeat", "lease",
    "log", "message", "position", "provider", "recorder", "runtime", "seq", "service", "session", "slot", "snapshot",
    "summary", "tail", "tombstone", "turn", "view", "window", "wrapper",
]  # fmt: skip
TYPES = [name for name in session_history_hooks.__all__ if is_dataclass(getattr(session_history_hooks, name))]


def rows(section: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("word", WORDS)
def test_each_word_of_the_design_has_a_row(word: str) -> None:
    assert word in ROWS


@pytest.mark.parametrize("name", session_history_hooks.__all__)
def test_each_public_name_has_a_section_or_a_row(name: str) -> None:
    assert name in SECTIONS or name in ROWS


@pytest.mark.parametrize("name", TYPES)
def test_section_of_a_type_has_a_row_for_each_field(name: str) -> None:
    assert rows(SECTIONS[name]) == [field.name for field in fields(getattr(session_history_hooks, name))]


def test_section_of_conflict_has_a_row_for_each_argument() -> None:
    assert rows(SECTIONS["Conflict"]) == list(inspect.signature(Conflict).parameters)


def test_words_are_in_alphabetical_order() -> None:
    section = re.search(r"^## Words\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    words = re.findall(r"^\| ([a-z ]+) \|", section[1], re.MULTILINE)[1:]
    assert words == sorted(words)
