"""The English site, built with Sphinx: our docstrings are written in its markup, and MyST takes pages of Markdown."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from site_frame.settings import *  # noqa: F403 - Sphinx reads the names of this module
from site_frame.settings import extensions

logging.getLogger("tablestore").setLevel(logging.ERROR)  # its SDK warns that it runs without its native codec

extensions = [*extensions, "sphinx.ext.autodoc", "sphinx.ext.viewcode", "site_frame.public_names"]
exclude_patterns = ["_build", "zh"]
html_context = {"other_language": {"name": "中文", "code": "zh-CN", "index": "zh/index.html"}}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
