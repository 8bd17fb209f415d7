"""The tutorial and the other pages with commands are followed: each step runs, and prints what the page says.

The commands run with the code of this tree, in the environment of the tests. So ``pip install`` and the like are
skipped (:data:`docs.walkthrough.PREPARING`); ``make dist`` shows that the package can be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.walkthrough import differences, is_walkthrough
from servers.ports import free_port
from servers.postgresql import running, servers
from support import ROOT

DOCS = ROOT / "docs"
SERVER = "postgresql://postgres:secret@localhost:5432/postgres"


TUTORIAL = [DOCS / "tutorial" / f"{page}.md" for page in ("first-handler", "first-agent", "postgresql")]
"""The pages of the tutorial. A reader stays in one folder."""

OTHERS = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if "_build" not in page.parts and page not in TUTORIAL and is_walkthrough(page)
]


def name(pages: list[Path]) -> str:
    return "-".join(page.stem for page in pages)


@pytest.fixture
def replaced(pages: list[Path]) -> Iterator[dict[str, str]]:
    """Return the texts of pages that name a server of the reader, and what names one of the tests."""
    port = free_port()
    texts = {":8000": f":{port}", "--port 8000": f"--port {port}"}
    if all(SERVER not in page.read_text(encoding="utf-8") for page in pages):
        yield texts
        return
    with servers() as machine, running(machine) as server:
        yield {**texts, SERVER: server.url()}


@pytest.mark.parametrize("pages", [TUTORIAL, *([page] for page in OTHERS)], ids=name)
async def test_pages_are_followed_and_print_what_they_say(
    pages: list[Path], replaced: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for page in pages:
        assert [difference async for difference in differences(page, tmp_path, replaced)] == []


def test_tutorial_is_the_folder() -> None:
    assert sorted(TUTORIAL) == sorted((DOCS / "tutorial").glob("*.md"))


def written(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(
    ("shown", "differs"),
    [
        ("Hello\nto 12 of you", False),
        ("Hello\n... of you", False),
        ("...\nHello\n...", False),
        ("Hello", True),
        ("", True),
        ("Bye\n...", True),
    ],
)
async def test_output_that_differs_from_the_page_is_found(tmp_path: Path, shown: str, differs: bool) -> None:
    program = '```python\n# greet.py\nprint("Hello\\nto 12 of you")\n```\n'
    page = written(tmp_path, f"{program}```console\n$ python greet.py\n{shown}\n$ python greet.py >greeting\n```\n")
    found = [difference async for difference in differences(page, tmp_path, {})]
    assert bool(found) is differs
    assert (tmp_path / "greeting").read_text() == "Hello\nto 12 of you\n"


async def test_exported_variables_and_replaced_texts_reach_the_commands(tmp_path: Path) -> None:
    page = written(
        tmp_path, "```console\n$ export GREETING=hello\n$ pip install no-such-package\n$ echo $GREETING\nHi\n```\n"
    )
    assert [each async for each in differences(page, tmp_path, {"hello": "Hi"})] == []


async def test_example_between_commands_is_run(tmp_path: Path) -> None:
    page = written(tmp_path, "```python\nprint(1 + 1)\n# 3\n```\n```console\n$ echo done\ndone\n```\n")
    assert [each async for each in differences(page, tmp_path, {})] == [
        "print(1 + 1)\n# 3\n\nprints ['2'] instead of ['3']"
    ]
