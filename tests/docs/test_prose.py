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


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("It can not.", ["'can not'"]),
        ("x " * 50, []),
        ("x " * 51, ["is 102 columns wide"]),
        (f"| {'x' * 96} |", []),
        (f"| {'x' * 97} |", ["is 101 columns wide"]),
        (f"|{'x' * 99}|", ["is 101 columns wide"]),
        ("会" * 50, []),
        ("会" * 51, ["is 102 columns wide"]),
        (f"See https://example.com/{'x' * 80}", ["is 104 columns wide"]),
        (f"https://example.com/{'x' * 100}", []),
        (f"- [two words](https://example.com/{'x' * 100})", []),
        (f"```\n{'x ' * 44}\n```", []),
        (f"```\n{'x ' * 45}\n```", ["is 90 columns wide"]),
        (f"```\n{'x' * 90}\n```", []),
        ("```\nIt can not.\n```", []),
    ],
)
def test_flaws_of_a_page_are_found(tmp_path: Path, line: str, found: list[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"{line}\n", encoding="utf-8")
    assert texts(list(flaws_of_page(path))) == found


def test_repository_has_no_flaw() -> None:
    assert list(map(str, flaws([ROOT / room for room in ROOMS]))) == []
