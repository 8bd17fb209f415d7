"""``llms.txt``, which leads language models to the Markdown of each page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def setup(app: Sphinx) -> None:
    app.connect("build-finished", write_llms_txt)


def write_llms_txt(app: Sphinx, error: Exception | None) -> None:
    """Write ``llms.txt``, which leads language models to the Markdown of each page."""
    if error is None and app.builder.format == "html":
        root = app.config.root_doc
        lines = [f"# {app.config.project}", "", f"> {introduction(app.env, root)}"]
        for title, pages in sections(app.env, root):
            lines += ["", f"## {title}", "", *(entry(app, page) for page in pages)]
        Path(app.outdir, "llms.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")


def sections(env: BuildEnvironment, page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the pages of each toctree, in the order of the site."""
    for toctree in env.get_doctree(page).findall(addnodes.toctree):
        yield toctree["caption"] or env.titles[page].astext(), toctree["includefiles"]
        for included in toctree["includefiles"]:
            yield from sections(env, included)


def entry(app: Sphinx, page: str) -> str:
    source = f"_sources/{app.env.doc2path(page, base=False)}{app.config.html_sourcelink_suffix}"
    return f"- [{app.env.titles[page].astext()}]({source}): {introduction(app.env, page)}"


def introduction(env: BuildEnvironment, page: str) -> str:
    """Return the first paragraph of a page that holds a sentence. A line of links to other languages holds none."""
    paragraphs = (each.astext() for each in env.get_doctree(page).findall(nodes.paragraph))
    return next((" ".join(text.split()) for text in paragraphs if text.endswith((".", "。", ":", "："))), "")  # noqa: RUF001
