"""The search of Chinese pages. Chinese has no spaces, so each two characters that stand together count as a word."""

from __future__ import annotations

import re

import sphinx.search
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

CHINESE = "\u3400-\u9fff\uf900-\ufaff"
RUN = re.compile(rf"[{CHINESE}]+|[^\W{CHINESE}]+")


class SearchChinese(SearchEnglish):
    """Words of Latin script as in English, and pairs of Chinese characters.

    A query is split in the same way, and a page must have all parts of it. Characters are words, too: a query of one
    character finds them.
    """

    lang = "zh"
    language_name = "English"  # that of the stemmer
    js_splitter_code = rf"""
function splitQuery(query) {{
  const runs = query.match(/[{CHINESE}]+|[^\p{{P}}\p{{S}}\s{CHINESE}]+/gu) || [];
  return runs.flatMap((run) =>
    /[{CHINESE}]/.test(run) && run.length > 1
      ? Array.from({{ length: run.length - 1 }}, (_, i) => run.slice(i, i + 2))
      : [run]
  );
}}
"""

    def split(self, input: str) -> list[str]:  # noqa: A002 - the name is Sphinx's
        return [word for run in RUN.findall(input) for word in words(run)]


def words(run: str) -> list[str]:
    if not re.match(f"[{CHINESE}]", run):
        return [run]
    return [*run, *(run[start : start + 2] for start in range(len(run) - 1))]


def setup(app: Sphinx) -> None:  # noqa: ARG001 - the interface of an extension
    sphinx.search.languages["zh"] = SearchChinese
