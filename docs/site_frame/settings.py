"""The settings of Sphinx that the trees of both languages share."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).parents[1]

project = html_title = "session-history"
author = "The session-history authors"
copyright = "2026, The session-history authors"  # noqa: A001 - Sphinx calls it so
release = metadata.version("session-history")

extensions = [
    "myst_parser",
    "site_frame.accessible",
    "site_frame.chinese",
    "site_frame.drawings",
    "site_frame.languages",
    "site_frame.llms",
]
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3

html_theme = "furo"
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
html_static_path = [str(DOCS / "_static")]
html_css_files = ["frame.css"]
html_js_files = ["frame.js"]
templates_path = [str(DOCS / "_templates")]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/language.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
