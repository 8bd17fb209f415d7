"""The site, built with Sphinx: our docstrings are written in its markup, and MyST lets the pages be Markdown."""

from importlib.metadata import version as version_of

project = "session-history"
author = "The session-history authors"
copyright = "2026, The session-history authors"  # noqa: A001 - Sphinx calls it so
release = version = version_of("session-history")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "session-history"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
