"""The Chinese site, a tree of its own inside the English one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from site_frame.settings import *  # noqa: F403 - Sphinx reads the names of this module

language = "zh_CN"
html_context = {"other_language": {"name": "English", "code": "en", "index": "../index.html"}}
