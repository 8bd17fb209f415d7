"""Names of a reference that users cannot import, and signatures that are shown more than once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from website.pages import pages

MODULES = (
    "session_history",
    "session_history.errors",
    "session_history.providers.memory",
    "session_history.providers.postgresql",
    "session_history.providers.redis",
    "session_history.providers.sqlite",
    "session_history.providers.tablestore",
    "session_history.runtimes.agentscope",
    "session_history.runtimes.agentscope_runtime",
    "session_history.wrappers.sharded",
    "session_history_hooks",
    "session_history_hooks.rules",
    "session_history_hooks.stored",
    "session_history_hooks.testing",
)
"""The modules that users import."""

PRIVATE = re.compile(r"(?<![\w}>`-])_[A-Za-z]\w*")
PATH = re.compile(r"\bsession_history(?:_hooks)?(?:\.[a-z]\w*)+(?=\.\w)")
"""The modules of the path of a name: all parts but the last."""

DOTTED = re.compile(r"(?<![\w./-])session_history(?:_hooks)?(?:\.\w+)+")

OF_THE_INSIDE = ("concepts/layers.html", "how-to/writing-a-provider.html", "how-to/writing-a-runtime.html")
"""Pages about the modules of the package, for those that extend it."""

UNPARSED = re.compile(r"~\w+\.")
"""A mark of Sphinx in a signature that it could not parse."""


def flaws(root: Path) -> Iterator[str]:
    shown: Counter[str] = Counter()
    for page in pages(root).values():
        if "_modules" in Path(page.name).parts:
            continue
        shown.update(str(signature.get("id")) for signature in page.soup.select("dt.sig"))
        for definition in page.soup.select("dl.py"):
            text = definition.get_text()
            for name in dict.fromkeys([*PRIVATE.findall(text), *_private_paths(text), *UNPARSED.findall(text)]):
                yield f"{page.name}: shows {name}"
        if page.name not in OF_THE_INSIDE:
            code = " ".join(box.get_text() for box in page.soup.select("code, pre"))
            for path in dict.fromkeys(DOTTED.findall(code)):
                module = re.split(r"\.[A-Z]", path)[0]  # of a class
                if not {module, module.rpartition(".")[0]} & set(MODULES):
                    yield f"{page.name}: names {path}"
    for name, count in shown.items():
        if count > 1 or name == "None":
            yield f"{name}: {count} signatures" if name != "None" else f"{count} more signatures of a name"


def _private_paths(text: str) -> list[str]:
    return [path for path in PATH.findall(text) if path not in MODULES]
