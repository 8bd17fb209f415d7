"""Tests of the frame of the site: drawings, links between the trees, signatures, and the search of Chinese words."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from bench.picture import accessible, described
from session_history import PostgresqlSessionHistoryService, SessionHistoryService, with_session_history
from site_frame import chinese, drawings, public_names
from support import ROOT

DRAWING = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="t d" viewBox="0 0 9 9">
  <title id="t">Title</title><desc id="d">Text</desc>
  <style>svg { color: black } .box { fill: red } @media (prefers-color-scheme: dark) { svg { color: white } }</style>
  <path id="p" class="box" marker-end="url(#m)"/><use href="#p"/>
</svg>
"""


def test_drawing_keeps_its_ids_and_style_to_itself() -> None:
    svg = BeautifulSoup(drawings.inlined(DRAWING, "turn", "Alt"), "html.parser").svg
    assert svg is not None
    assert svg["aria-labelledby"] == "turn-t turn-d"
    assert [each["id"] for each in svg.find_all(id=True)] == ["turn-t", "turn-d", "turn-p"]
    assert svg.select("path")[0]["marker-end"] == "url(#turn-m)"
    assert svg.select("use")[0]["href"] == "#turn-p"


def test_drawing_without_text_has_that_of_its_image() -> None:
    assert 'aria-label="Alt"' in drawings.inlined('<svg xmlns="http://www.w3.org/2000/svg"/>', "turn", "Alt")


def test_style_of_a_drawing_follows_the_mode_of_the_page() -> None:
    style = drawings.scoped("svg { a: b } @media (prefers-color-scheme: dark) { svg.c { d: e } } .svg-x { f: g }", "id")
    assert style.startswith("#id {& { a: b }")
    assert ".svg-x { f: g }" in style
    assert "body[data-theme=dark] #id { &.c { d: e } }" in style
    assert "(prefers-color-scheme: dark) { body:not([data-theme=light]) #id { &.c { d: e } } }" in style


def test_drawings_of_the_site_have_text_for_screen_readers() -> None:
    files = list((ROOT / "docs").glob("concepts/*.svg"))
    assert files
    for file in files:
        source = file.read_text(encoding="utf-8")
        svg = BeautifulSoup(source[source.index("<svg") :], "html.parser").svg
        assert svg is not None
        assert svg["role"] == "img"
        texts = [svg.find(id=name) for name in str(svg["aria-labelledby"]).split()]
        assert [text.name for text in texts if text] == ["title", "desc"], file.name
        assert "prefers-color-scheme: dark" in str(svg)


def test_picture_of_the_bench_says_its_numbers_and_suits_dark_pages() -> None:
    text = described({10: {"floor": 0.5, "sqlite": 0.75}, 100: {"floor": 0.5, "sqlite": 0.7}})
    assert (
        text == "A turn in a session of 10 and of 100 messages takes: floor 0.50 and 0.50 ms, sqlite 0.75 and 0.70 ms."
    )
    drawn = accessible('<svg xmlns="http://www.w3.org/2000/svg"><path style="stroke: #000000"/></svg>', text)
    assert 'style="stroke: currentColor"' in drawn
    assert f'<desc id="description">{text}</desc>' in drawn


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("会话", {"会", "话", "会话"}),
        ("保存会话", {"保存", "存会", "会话", "保", "存", "会", "话"}),
        ("用SQLite保存。", {"用", "SQLite", "保存", "保", "存"}),
        ("turn_id 3.11", {"turn_id", "3", "11"}),
    ],
)
def test_chinese_text_is_split_into_pairs_and_characters(text: str, words: set[str]) -> None:
    assert set(chinese.SearchChinese({}).split(text)) == words


def test_signature_has_each_keyword_of_its_options() -> None:
    shown = public_names.with_keywords(
        "(url: str, **options: ~typing.Unpack)", PostgresqlSessionHistoryService.__init__
    )
    assert shown.startswith("(url: str, *, schema: str | None = None, pool_size: int = 10, ")
    for function in (SessionHistoryService.turn, with_session_history):
        assert "on_repeat: ~typing.Literal['replay', 'rerun'] = 'replay'" in public_names.with_keywords(
            "(*, native: bool = False, **options: ~typing.Any)", function
        )


def test_function_without_options_keeps_its_signature() -> None:
    assert public_names.with_keywords("(path: str)", SessionHistoryService.from_config) == "(path: str)"
    assert inspect.isfunction(SessionHistoryService.from_config)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(title: str | ~session_history.service._Unset | None = UNSET)", "(title: str | None = ...)"),
        ("(m: ~session_history.records.messages.Message)", "(m: ~session_history.Message)"),
        ("(e: list = <factory>)", "(e: list = ...)"),
        ("(s: ~types.Annotated[list[str], MinLen(min_length=1)])", "(s: list[str])"),
    ],
)
def test_signature_is_shown_in_public_names(text: str, shown: str) -> None:
    assert public_names.plain(text) == shown


def test_link_to_the_other_tree_leads_to_its_page(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, text in {
        "index.md": "# Things\n\n[中文](zh/index.md#one) [small](small.md)\n\n```{toctree}\nsmall\n```\n",
        "small.md": "# Small\n",
        "zh/index.md": "# 大\n",
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", str(ROOT / "docs"), "-D", "html_theme=furo"]
    subprocess.run([*command, str(source), str(tmp_path / "site")], check=True)
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="zh/index.html#one"' in page
    assert 'href="small.html"' in page
