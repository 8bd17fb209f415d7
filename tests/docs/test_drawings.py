"""Tests of the drawings by hand: they read in both colour schemes, on a small screen and by a screen reader."""

from __future__ import annotations

import re
from itertools import chain, combinations, product
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support import ROOT

CONCEPTS = ROOT / "docs" / "concepts"
DRAWN_PAGES = ("layers", "turn", "entry", "session", "model-view")

PROGRAM_DRAWN = {"bench.svg"}
"""Pictures that a program makes."""

DRAWINGS = sorted(
    path for path in (ROOT / "docs").rglob("*.svg") if "_build" not in path.parts and path.name not in PROGRAM_DRAWN
)

SVG = "{http://www.w3.org/2000/svg}"

PAGE_COLOURS = {"light": "#ffffff", "dark": "#131416"}
"""The background of the site in each scheme: a drawing has none of its own."""

MIN_CONTRAST = 4.5
MAX_WIDTH = 720
MIN_FONT_SIZE = 14

CHARACTER_WIDTH = 0.6
"""The width of a character in ems, in a wide font."""


class Drawing:
    """A drawing, with its styles by class."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.root = ET.parse(path).getroot()
        self.style = self.root.findtext(f"{SVG}style") or ""
        self.rules = dict(re.findall(r"^ *\.([\w-]+) \{(.*)\}$", self.style, re.MULTILINE))

    def all(self, tag: str) -> list[ET.Element]:
        return list(self.root.iter(SVG + tag))

    def colours(self, scheme: str) -> dict[str, str]:
        """Return the custom properties of a scheme."""
        light, _, dark = self.style.partition("@media (prefers-color-scheme: dark)")
        return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))

    def fills(self, tag: str) -> set[str]:
        """Return the custom properties that fill the elements of a tag."""
        classes = chain.from_iterable(element.get("class", "").split() for element in self.all(tag))
        rules = [self.rules[name] for name in classes]
        return {name for rule in rules for name in re.findall(r"fill: var\((--[\w-]+)\)", rule)}

    def font_size(self, text: ET.Element) -> float:
        own = re.search(r"font-size: (\d+)px", self.rules[text.get("class", "")])
        usual = re.search(r"font: (\d+)px", self.style)
        found = own or usual
        assert found is not None
        return float(found[1])

    def span(self, text: ET.Element) -> tuple[float, float]:
        """Return where a text begins and ends, at about."""
        width = len(text.text or "") * self.font_size(text) * CHARACTER_WIDTH
        left = float(text.get("x", "nan")) - width * {"middle": 0.5, "end": 1}.get(text.get("text-anchor", ""), 0)
        return left, left + width


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


each_drawing = pytest.mark.parametrize("drawing", [*map(Drawing, DRAWINGS)], ids=lambda drawing: drawing.name)


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("page", DRAWN_PAGES)
def test_concept_page_shows_its_drawing(page: str) -> None:
    assert re.search(rf"^!\[.+\]\({page}\.svg\)$", (CONCEPTS / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)


@each_drawing
def test_drawing_has_text_for_screen_readers(drawing: Drawing) -> None:
    title, desc = drawing.root.find(f"{SVG}title"), drawing.root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert drawing.root.get("role") == "img"
    assert drawing.root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
    assert (title.text or "").strip()
    assert len((desc.text or "").split(". ")) > 3


def test_drawings_share_no_id() -> None:
    ids = [element.get("id") for path in DRAWINGS for element in Drawing(path).root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


@each_drawing
def test_names_in_a_drawing_begin_with_its_own(drawing: Drawing) -> None:
    used = [element.get(kind, "") for element in drawing.root.iter() for kind in ("id", "class")]
    names = {*drawing.rules, *chain.from_iterable(map(str.split, used))} - {drawing.name}
    assert all(name.startswith(f"{drawing.name}-") for name in names)


@each_drawing
def test_drawing_fits_the_width_of_its_page(drawing: Drawing) -> None:
    left, top, width, _ = map(float, drawing.root.get("viewBox", "").split())
    assert (left, top) == (0, 0)
    assert width <= MAX_WIDTH
    assert not {"width", "height"} & drawing.root.attrib.keys()


@each_drawing
@pytest.mark.parametrize("scheme", PAGE_COLOURS)
def test_text_of_a_drawing_has_contrast(drawing: Drawing, scheme: str) -> None:
    colours = drawing.colours(scheme)
    texts = drawing.fills("text")
    grounds = [PAGE_COLOURS[scheme], *(colours[name] for name in drawing.fills("rect"))]
    assert texts
    assert colours.keys() == drawing.colours("light").keys()
    assert {
        (name, ground): ratio
        for name, ground in product(texts, grounds)
        if (ratio := contrast(colours[name], ground)) < MIN_CONTRAST
    } == {}


@each_drawing
def test_text_of_a_drawing_stays_inside(drawing: Drawing) -> None:
    _, _, width, height = map(float, drawing.root.get("viewBox", "").split())
    for text in drawing.all("text"):
        left, right = drawing.span(text)
        size = drawing.font_size(text)
        assert size >= MIN_FONT_SIZE
        assert left >= 0, text.text
        assert right <= width, text.text
        assert size <= float(text.get("y", "nan")) <= height - size / 4, text.text


@each_drawing
def test_text_of_a_drawing_crosses_no_edge_of_a_box(drawing: Drawing) -> None:
    for text in drawing.all("text"):
        left, right = drawing.span(text)
        for box in drawing.all("rect"):
            x, y, width, height = (float(box.get(name, "nan")) for name in ("x", "y", "width", "height"))
            is_beside = right <= x or x + width <= left or not y <= float(text.get("y", "nan")) <= y + height
            assert is_beside or x <= left <= right <= x + width, text.text


@each_drawing
def test_texts_of_a_drawing_do_not_overlap(drawing: Drawing) -> None:
    for one, other in combinations(drawing.all("text"), 2):
        if abs(float(one.get("y", "nan")) - float(other.get("y", "nan"))) < MIN_FONT_SIZE:
            (left, right), (other_left, other_right) = drawing.span(one), drawing.span(other)
            assert right <= other_left or other_right <= left, (one.text, other.text)
