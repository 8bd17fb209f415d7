"""Links of a built site that lead nowhere. Links to other sites are not followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from website.pages import Page, pages


def flaws(root: Path) -> Iterator[str]:
    site = pages(root)
    for page in site.values():
        for link in dict.fromkeys(page.links()):
            if flaw := _flaw(page, link, site):
                yield f"{page.name}: {link} leads to {flaw}"


def _flaw(page: Page, link: str, site: dict[Path, Page]) -> str | None:
    """Return what a link leads to, if that does not exist."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    if not path.is_file():
        return "no file"
    if parts.fragment and path in site and unquote(parts.fragment) not in site[path].ids:
        return "no place on that page"
    return None
