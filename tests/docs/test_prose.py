"""Tests of the prose of the whole repository, by the rules that a program can check."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.prose import ROOMS, ROOT, Flaw, flaws, flaws_of_code, flaws_of_page


def texts(found: list[Flaw]) -> list[str]:
    return [flaw.text for flaw in found]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""Return it."""\n', []),
        ('"""What it returns."""\n', ["a docstring begins with 'What'"]),
        ("x = 1  # it can not be read\n", ["'can not'"]),
        ('raise ValueError("it can not be read")\n', ["'can not'"]),
        ('x = 1\n"""It stands alone."""\n', ["'alone'"]),
        ("def test_it_works(): ...\n", ["the name test_it_works does not say its subject"]),
        ("def test_append_after_delete_raises(): ...\n", []),
    ],
)
def test_flaws_of_code_are_found(tmp_path: Path, source: str, found: list[str]) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert texts(list(flaws_of_code(path))) == found


def test_flaws_of_a_page_are_found_outside_of_examples_and_tables(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"{'x' * 101}\n| {'x' * 101} |\n```\n{'x' * 101} can not\n```\nIt can not.\n")
    assert texts(list(flaws_of_page(path))) == ["has 101 characters", "'can not'"]


def test_repository_has_no_flaw() -> None:
    assert list(map(str, flaws([ROOT / room for room in ROOMS]))) == []
