"""Tests of ``llms.txt``, which the site offers to language models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import ROOT

PAGES = {
    "index.md": "# Things\n\nThey are\nthings.\n\n```{toctree}\n:caption: First steps\n\nsmall\nmore/index\n```\n",
    "small.md": "# Small things\n\nEnglish · [large](more/large.md)\n\nYou can hold `them`.\n",
    "more/index.md": "# More\n\nThere are more.\n\n```{toctree}\nlarge\n```\n",
    "more/large.md": "# 大\n\n它们很大。\n",
}

LLMS = """\
# session-history

> They are things.

## First steps

- [Small things](_sources/small.md.txt): You can hold them.
- [More](_sources/more/index.md.txt): There are more.

## More

- [大](_sources/more/large.md.txt): 它们很大。
"""


def test_llms_txt_lists_the_source_of_each_page(tmp_path: Path) -> None:
    for name, text in PAGES.items():
        page = tmp_path / "source" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", str(ROOT / "docs")]
    subprocess.run([*command, str(tmp_path / "source"), str(site)], check=True)
    assert (site / "llms.txt").read_text(encoding="utf-8") == LLMS
    assert (site / "_sources/more/large.md.txt").is_file()
