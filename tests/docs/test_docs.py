"""Tests of the pages: their examples run and print what the pages say."""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import session_history
from docs.examples import blocks, differences
from docs.walkthrough import is_walkthrough
from session_history import SessionHistoryService, errors, with_session_history
from session_history.config import settings as config
from session_history.config.sources import PREFIX
from session_history.handlers.decorator import HandlerOptions
from session_history.providers.memory import MemoryProvider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.providers.sqlite import SqliteOptions, SqliteProvider
from session_history.providers.tablestore import TablestoreProvider
from session_history.turns.turn import TurnRequest
from support import ROOT

AGENTS = ROOT / "plugin" / "session_history" / "AGENTS.md"
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in DOCS.rglob("*.md") if "_build" not in page.parts), AGENTS])


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


NOT_RUN = re.compile(r"^```py\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!\w+:)([^)#\s]*)(#[^)\s]*)?(?: \"[^\"]*\")?(?:\)|$)", re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and not is_walkthrough(page)], ids=name)
async def test_examples_of_a_page_print_what_they_say(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSION_HISTORY_URL", "memory://")
    assert [difference async for difference in differences(page)] == []


def test_pages_have_the_same_examples_and_headings_in_both_languages() -> None:
    pairs = [(DOCS / "how-to" / page.name, page) for page in (DOCS / "zh").glob("*.md") if page.name != "index.md"]
    for english, chinese in [*pairs, (ROOT / "README.md", ROOT / "README.zh.md")]:
        assert len(blocks(english)) == len(blocks(chinese)) > 1, chinese
        headings = [HEADING.findall(CODE.sub("", page.read_text(encoding="utf-8"))) for page in (english, chinese)]
        assert len(headings[0]) == len(headings[1]), chinese


HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    titles = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {title.replace(" ", "-") for title in titles}


def dead_links(page: Path) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of it."""
    dead = []
    for target, anchor in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        file = page.parent / target if target else page
        is_page = file.suffix == ".md" and file.exists()
        if not file.exists() or (anchor and is_page and anchor[1:] not in anchors(file)):
            dead.append(target + anchor)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize(
    "link", ["[a](gone.md)", '[a](gone.md "title")', "[a](#gone)", "[a](page.md#gone)", "[a]: gone.md"]
)
def test_dead_link_is_found(tmp_path: Path, link: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n[b](#title) [c](page.md#title) [d](https://example.com/gone)\n\n{link}\n")
    assert len(dead_links(page)) == 1


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_errors_page_lists_every_error() -> None:
    listed = re.findall(r"^### `(\w+)`\n\nAlso an? `(\w+)`", page("reference/errors.md"), re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(set(errors.__all__) - {"SessionHistoryError"})
    for name, builtin in listed:
        assert issubclass(getattr(errors, name), getattr(builtins, builtin))


def test_sqlite_page_lists_every_option() -> None:
    text = page("reference/sqlite.md")
    for name in set(SqliteOptions.model_fields) - {"url"}:
        default = SqliteOptions.model_fields[name].default
        assert f"| `{name}` | `{default if isinstance(default, str) else format(default, 'g')}` |" in text


def test_configuration_page_lists_every_setting() -> None:
    text = page("reference/configuration.md")
    for variable in ("URL", "CONFIG", "OPTION_<NAME>"):
        assert f"| `{PREFIX}{variable}` |" in text


def test_reference_shows_each_public_name_once() -> None:
    text = "".join(each.read_text(encoding="utf-8") for each in (DOCS / "reference").glob("*.md"))
    shown = re.findall(r"^\.\. (?:auto(?:class|function|data)|py:data):: (\S+)$", text, re.MULTILINE)
    public = {f"session_history.{name}" for name in session_history.__all__} | {"session_history.MessageInput"}
    assert sorted(name for name in shown if name.rpartition(".")[0] == "session_history") == sorted(
        public - {"session_history.SessionHistoryError"}
    )
    assert len(shown) == len(set(shown))


def test_decorator_page_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page("reference/decorator.md"), re.MULTILINE))
    defaults = {
        name: each.default
        for function in (TurnRequest, with_session_history)
        for name, each in inspect.signature(function).parameters.items()
    }
    options = {"service", "identify", "native", *get_type_hints(HandlerOptions)}
    assert {name: ast.literal_eval(default) for name, default in listed.items()} == {
        name: defaults[name] for name in options
    }


STORES: dict[str, type] = {
    "memory": MemoryProvider,
    "sqlite": SqliteProvider,
    "postgresql": PostgresqlProvider,
    "redis": RedisProvider,
    "tablestore": TablestoreProvider,
}


@pytest.mark.parametrize("store", STORES)
def test_page_of_a_provider_names_its_parts_and_options(store: str) -> None:
    text = page(f"reference/{store}.md")
    assert f"| provider | `{STORES[store].__module__}.{STORES[store].__name__}` |" in text
    assert re.search(rf"^\| URL \| `{store}://", text, re.MULTILINE)
    service = re.search(r"^\| service \| `session_history\.(\w+)` \|$", text, re.MULTILINE)
    assert service is not None
    assert issubclass(getattr(session_history, service[1]), SessionHistoryService)
    options = set(inspect.signature(STORES[store]).parameters) - {"url", "path", "client"}
    assert options <= set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*", text, re.MULTILINE))))


@pytest.mark.parametrize("tree", [DOCS, DOCS / "zh"], ids=name)
def test_site_lists_every_page(tree: Path) -> None:
    toctrees = re.findall(r"```\{toctree\}\n(.*?)```", (tree / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    listed = [each for toctree in toctrees for each in toctree.split() if not each.startswith(":")]
    pages = {each.relative_to(tree).with_suffix("").as_posix() for each in PAGES if each.is_relative_to(tree)}
    assert {each for each in pages if not each.startswith("zh/")} - {"index"} == set(listed) & pages


def test_migration_page_has_the_same_python_in_both_languages() -> None:
    not_run = NOT_RUN.findall(page("how-to/migration.md"))
    assert len(not_run) == 5
    assert not_run == NOT_RUN.findall(page("zh/migration.md"))
    for block in not_run:
        compile(block, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_toml_of_the_configuration_page_loads(tmp_path: Path) -> None:
    text = page("reference/configuration.md")
    example = re.search(r"^```toml\n(\[session-history\].*?)^```", text, re.MULTILINE | re.DOTALL)
    assert example is not None
    file = tmp_path / "app.toml"
    file.write_text(example[1])
    loaded = config.load(file, {})
    assert (loaded.url, loaded.options) == ("sqlite:///history.db", {"synchronous": "NORMAL"})


def example(name: str, folder: Path) -> list[str]:
    """Return the output of an example that has no key of a real model, in the pieces in which it comes."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment.pop("PYTHONUNBUFFERED", None)  # it would cut each line from its end
    command = [sys.executable, str(ROOT / "examples" / name)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        output = process.stdout.fileno()
        pieces = [piece.decode() for piece in iter(lambda: os.read(output, 65536), b"")]
    assert process.returncode == 0
    return pieces


def test_quickstart_example_continues_in_a_second_process(tmp_path: Path) -> None:
    printed = "".join(example("quickstart.py", tmp_path))
    assert printed.count("Your name is Ada.") == 2
    assert "The store holds 8 messages in 4 turns." in printed
    first, second = re.findall(r"Process (\d+)", printed)
    assert first != second


def test_agent_example_continues_in_a_second_process(tmp_path: Path) -> None:
    pieces = example("agentscope_quickstart.py", tmp_path)
    printed = "".join(pieces)
    assert "The model is a script." in printed
    assert "assistant  The next train to Hangzhou leaves at 09:12." in printed
    first, second = re.findall(r"Process (\d+)", printed)
    assert first != second
    assert printed.index(f"Process {second}") < printed.index("assistant  You are Ada, and go to Hangzhou.")
    assert "The store holds 8 messages in 4 turns, with 1 tool call and 1 result." in printed
    assert any(not piece.endswith("\n") for piece in pieces), "no answer came in pieces"
    assert Path(printed.split("The conversation is in ")[1].strip()) == tmp_path / "agentscope_quickstart.db"
    assert (tmp_path / "agentscope_quickstart.db").is_file()
