"""Small repairs of the HTML of Sphinx and its theme, for screen readers."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

REPAIRS = {
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<th class="head"></th>': "<td></td>",
    '<th class="head"><p></p></th>': "<td></td>",
}
"""A heading has a level, and an empty cell is not the head of its column."""

PARTS = ("body", "furo_navigation_tree", "toc")


def repair(_: Sphinx, __: str, ___: str, context: dict[str, Any], ____: object) -> None:
    for part in PARTS:
        for flaw, repaired in REPAIRS.items():
            context[part] = context.get(part, "").replace(flaw, repaired)


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", repair, priority=900)  # after the theme
