"""Tests of the checks of the built site: each finds a page with a flaw, and passes one without."""

from __future__ import annotations

from pathlib import Path

import pytest

from website import browser, links, names

GOOD = """
<a href="sub/other.html#place">there</a> <a href="#here">here</a> <a href="https://example.com/no">away</a>
<h1 id="here">Here</h1> <img src="a%20picture.png" alt="A picture">
<dl class="py"><dt class="sig" id="session_history.errors.Name">session_history.errors.Name(key: Key)</dt>
<dd>Raise session_history.errors.Name.other, see session_history.__version__.</dd></dl>
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.html").write_text('<p id="place"><a href="../index.html">back</a></p>')
    (tmp_path / "a picture.png").touch()
    (tmp_path / "index.html").write_text(GOOD)
    return tmp_path


def test_site_without_flaws_passes(site: Path) -> None:
    assert [*links.flaws(site), *names.flaws(site)] == []


@pytest.mark.parametrize(
    ("html", "flaw"),
    [
        ('<a href="missing.html">', "missing.html leads to no file"),
        ('<a href="sub/other.html#missing">', "sub/other.html#missing leads to no place on that page"),
        ('<a href="#missing">', "#missing leads to no place on that page"),
        ('<img src="missing.png">', "missing.png leads to no file"),
        ('<a href="sub">', "sub leads to no file"),
    ],
)
def test_link_that_leads_nowhere_is_found(site: Path, html: str, flaw: str) -> None:
    (site / "index.html").write_text(GOOD + html)
    assert list(links.flaws(site)) == [f"index.html: {flaw}"]


@pytest.mark.parametrize(
    ("html", "flaw"),
    [
        ("x: str | _Unset = ...", "index.html: shows _Unset"),
        ("x: session_history.turns.turn.Turn", "index.html: shows session_history.turns.turn"),
        ("x: ~typing.Any", "index.html: shows ~typing."),
        ('<dt class="sig">name(x)</dt>', "1 more signatures of a name"),
        ('<dt class="sig" id="session_history.errors.Name">', "session_history.errors.Name: 2 signatures"),
    ],
)
def test_flaw_of_a_name_is_found(site: Path, html: str, flaw: str) -> None:
    (site / "index.html").write_text(f'{GOOD}<dl class="py">{html}</dl>')
    assert list(names.flaws(site)) == [flaw]


def test_private_module_in_the_code_of_a_page_is_a_flaw(site: Path) -> None:
    code = "<pre>from session_history.log.waiting import x</pre><code>session_history.errors.InvalidKey</code>"
    (site / "index.html").write_text(GOOD + code)
    assert list(names.flaws(site)) == ["index.html: names session_history.log.waiting"]


def test_source_code_may_have_private_names(site: Path) -> None:
    (site / "_modules").mkdir()
    (site / "_modules" / "a.html").write_text('<dl class="py">_private</dl>')
    assert list(names.flaws(site)) == []


def test_page_that_scrolls_sideways_is_a_flaw() -> None:
    measures = browser.Measures(sideways=["content"], cut=[])
    assert list(browser.layout_flaws(measures)) == ["the page scrolls sideways (content)"]


def test_code_that_is_cut_is_a_flaw() -> None:
    measures = browser.Measures(sideways=[], cut=["x = 1"])
    assert list(browser.layout_flaws(measures)) == ["code is cut, 5 characters: x = 1"]


def test_violation_of_accessibility_is_one_flaw_for_each_element() -> None:
    violation = {
        "id": "image-alt",
        "help": "Images have text",
        "nodes": [{"target": ["img"]}, {"target": ["p", "img"]}],
    }
    assert list(browser.accessibility_flaws([violation])) == [
        "image-alt: Images have text: img",
        "image-alt: Images have text: p img",
    ]


def test_names_of_pages_leave_out_source_code(site: Path) -> None:
    (site / "_modules").mkdir()
    (site / "_modules" / "a.html").touch()
    assert browser.names_of_pages(site, ["*.html"]) == ["index.html", "sub/other.html"]
    assert browser.names_of_pages(site, ["sub/*"]) == ["sub/other.html"]


def test_machine_without_chromium_is_told_how_to_install_it(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(site))
    assert browser.main(site, ["*.html"]) == 1
    assert "apt-get install chromium" in capsys.readouterr().out
