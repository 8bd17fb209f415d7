"""The pages of a built site."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from bs4 import BeautifulSoup


class Page:
    """A page of a site. :param root: the folder of the site."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(root).as_posix()

    @cached_property
    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.path.read_text(encoding="utf-8"), "html.parser")

    @cached_property
    def ids(self) -> list[str]:
        return [str(element["id"]) for element in self.soup.find_all(id=True)]

    def links(self) -> Iterator[str]:
        """Yield all that the page names in a link, an image, a style or a script."""
        for attribute in ("href", "src"):
            for element in self.soup.select(f"[{attribute}]"):
                yield str(element[attribute])


def pages(root: Path) -> dict[Path, Page]:
    root = root.resolve()
    return {path: Page(root, path) for path in sorted(root.rglob("*.html"))}
