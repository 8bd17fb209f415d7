"""Drawings as part of their page, so that they follow its light and dark mode, and screen readers find their text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
DARK = re.compile(r"@media\s*\(\s*prefers-color-scheme:\s*dark\s*\)\s*\{((?:[^{}]*\{[^{}]*\})*[^{}]*)\}")
ROOT = re.compile(r"(?<![\w.#:-])(?:svg|:root)(?=[\s,{.:])")
NAMES = ("aria-labelledby", "aria-describedby")

ET.register_namespace("", SVG)
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")


class Drawings(SphinxPostTransform):
    """Replaces images of SVG by their content."""

    default_priority = 8
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.env.srcdir, image["uri"])
            if path.suffix == ".svg" and path.is_file():
                drawing = inlined(path.read_text(encoding="utf-8"), path.stem, image.get("alt", ""))
                image.replace_self(nodes.raw("", f'<div class="drawing">{drawing}</div>', format="html"))


def inlined(source: str, name: str, text: str) -> str:
    """Return an SVG as an element of a page.

    :param name: the first part of the ids of its elements, of which a page has each one once.
    :param text: the text for screen readers, if the SVG has none.
    """
    root = ET.fromstring(source)  # noqa: S314 - a file of ours
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    root.set("id", root.get("id", "drawing"))
    root.set("role", "img")
    if "aria-labelledby" not in root.attrib:
        root.set("aria-label", text)
    for element in root.iter():
        _name_ids(element, name)
        if element.tag == f"{{{SVG}}}style":
            element.text = scoped(element.text or "", root.attrib["id"])
    return ET.tostring(root, encoding="unicode")


def scoped(style: str, root: str) -> str:
    """Return the style of a drawing for its element only, in the mode of the page instead of that of the system.

    :param root: the id of the drawing's element.
    """
    light, dark = (ROOT.sub("&", text) for text in (DARK.sub("", style), "".join(DARK.findall(style))))
    return (
        f"#{root} {{{light}}}\n@media not print {{\nbody[data-theme=dark] #{root} {{{dark}}}\n"
        f"@media (prefers-color-scheme: dark) {{ body:not([data-theme=light]) #{root} {{{dark}}} }}\n}}"
    )


def _name_ids(element: ET.Element, name: str) -> None:
    """Put a name before the ids of an element, and before the ids that its attributes name."""
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key in NAMES:
            element.set(key, " ".join(f"{name}-{each}" for each in value.split()))
        elif key in {"href", LINK}:
            element.set(key, re.sub(r"^#", f"#{name}-", value))
        else:
            element.set(key, value.replace("url(#", f"url(#{name}-"))


def setup(app: Sphinx) -> None:
    app.add_post_transform(Drawings)
