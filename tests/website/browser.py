"""Look at each page of a built site in Chromium: ``python -m website.browser FOLDER [PATTERN ...]``.

Each page is shown on a phone and on a laptop, in light and in dark mode. Before that, the program looks at pages with
planted flaws, and stops if it does not find them.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

if TYPE_CHECKING:
    from playwright.sync_api import Page

PHONE, LAPTOP = 400, 1280
MODES = ("light", "dark")
WORDS = {"": ("session", "SQLite", "with_session_history"), "zh/": ("会话", "会话历史", "存储", "装饰", "SQLite")}
"""Words that the search of each tree finds."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MISSING = "No Chromium was found. Install it, for example with: apt-get install chromium"

MEASURE = """
() => {
  const isWide = (box) => box.scrollWidth > box.clientWidth;
  const longest = (text) => text.split("\\n").reduce((a, b) => (b.length > a.length ? b : a));
  const frames = [document.scrollingElement, ...document.querySelectorAll(".page, .main, .content")];
  return {
    sideways: frames.filter(isWide).map((box) => box.className || box.localName),
    cut: [...document.querySelectorAll("pre, dt.sig")].filter(isWide).map((box) => longest(box.textContent)),
  };
}
"""

PLANTED = {
    "sideways": '<p style="width: 2000px">Wide</p>',
    "code is cut": f"<pre style='overflow: auto'>{'x' * 400}</pre>",
    "color-contrast": '<p style="color: #ccc; background: #fff">Pale</p>',
    "image-alt": '<img src="data:,">',
}
"""Flaws to find, each by a part of its message."""


class Measures(TypedDict):
    """The state of a page that is shown.

    :ivar sideways: the parts of the page's frame that scroll sideways.
    :ivar cut: the longest line of each block of code that does not fit.
    """

    sideways: list[str]
    cut: list[str]


def layout_flaws(measures: Measures) -> Iterator[str]:
    for part in measures["sideways"]:
        yield f"the page scrolls sideways ({part})"
    for line in measures["cut"]:
        yield f"code is cut, {len(line)} characters: {line}"


def accessibility_flaws(violations: list[dict[str, Any]]) -> Iterator[str]:
    for violation in violations:
        for node in violation["nodes"]:
            yield f"{violation['id']}: {violation['help']}: {' '.join(map(str, node['target']))}"


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve a folder, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(root))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def look(page: Page, address: str) -> Iterator[str]:
    """Yield the flaws of a page."""
    from axe_playwright_python.sync_playwright import Axe

    for width in (PHONE, LAPTOP):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(address)
        for mode in MODES:
            page.evaluate("mode => { document.body.dataset.theme = mode }", mode)
            found = [*layout_flaws(page.evaluate(MEASURE))]
            found += accessibility_flaws(Axe().run(page).response["violations"])
            yield from (f"{width} px, {mode}: {flaw}" for flaw in found)


def search_flaws(page: Page, address: str) -> Iterator[str]:
    for tree, words in WORDS.items():
        for word in words:
            page.goto(f"{address}{tree}search.html?q={quote(word)}")
            page.wait_for_selector("#search-results p.search-summary")
            if not page.locator("#search-results li").count():
                yield f"{tree}search.html: {word} is not found"


def blind_spots(page: Page) -> list[str]:
    """Return the planted flaws that are not found."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        for number, flaw in enumerate(PLANTED.values()):
            text = f'<!doctype html><html lang="en"><title>Planted</title><body><main><h1>Flaw</h1>{flaw}</main></body>'
            Path(folder, f"{number}.html").write_text(text, encoding="utf-8")
        return [
            name
            for number, name in enumerate(PLANTED)
            if not any(name in flaw for flaw in look(page, f"{address}{number}.html"))
        ]


def names_of_pages(root: Path, patterns: list[str]) -> list[str]:
    """Return the pages that match a pattern, without those of source code."""
    names = {path.relative_to(root).as_posix() for pattern in patterns for path in root.rglob(pattern)}
    return sorted(name for name in names if name.endswith(".html") and "_modules" not in Path(name).parts)


def check(page: Page, root: Path, names: list[str]) -> Iterator[str]:
    """Yield the flaws of a site, and print what is being looked at."""
    with served(root) as address:
        for number, name in enumerate(names, start=1):
            found = list(look(page, address + name))
            print(f"[{number}/{len(names)}] {name}: {len(found) or 'no'} flaws", *found, sep="\n    ", flush=True)
            yield from found
        print("Search", flush=True)
        yield from search_flaws(page, address)


def main(root: Path, patterns: list[str]) -> int:
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        print(MISSING)
        return 1
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=executable) as browser:
        page = browser.new_page()
        if unseen := blind_spots(page):
            print(f"The check is blind to: {', '.join(unseen)}")
            return 1
        found = list(check(page, root, names_of_pages(root, patterns)))
    print(f"{len(found)} flaws")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:] or ["*.html"]))
