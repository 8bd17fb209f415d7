"""Links between the trees of the languages: a link to the Markdown of a page leads to the page of the other tree."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

LINK = re.compile(r"\]\(([^)#:\s]+)\.md(#[^)\s]*)?\)")


def lead_to_other_tree(app: Sphinx, page: str, content: list[str]) -> None:
    """Rewrite the links of a page that lead to no page of its own tree. MyST takes links of this class as they are."""

    def rewritten(link: re.Match[str]) -> str:
        path, anchor = link.groups(default="")
        return f"]({path}.html{anchor}){{.external}}" if _is_elsewhere(app.env, page, f"{path}.md") else link[0]

    content[0] = LINK.sub(rewritten, content[0])


def _is_elsewhere(env: BuildEnvironment, page: str, target: str) -> bool:
    path = Path(env.relfn2path(target, page)[1])
    return path.is_file() and env.path2doc(path) not in env.found_docs


def setup(app: Sphinx) -> None:
    app.connect("source-read", lead_to_other_tree)
