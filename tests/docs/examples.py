"""The examples of a page, and what they print: ``python -P examples.py PAGE ...`` runs pages in the current folder.

The program needs only the packages that the pages use, so it can show that the examples run from the wheel.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```python\n(?!# [\w./-]+\.\w+\n)(.*?)^```", re.MULTILINE | re.DOTALL)
"""Code that is run, as opposed to that of the language ``py``, and to a file: its first line is the name."""


def blocks(page: Path) -> list[str]:
    return FENCE.findall(page.read_text(encoding="utf-8"))


def promised(block: str) -> list[str]:
    """Return the output that the comments below each print promise."""
    lines = [line.strip() for line in block.splitlines()]
    return [
        line.removeprefix("# ")
        for previous, line in pairwise(lines)
        if line.startswith("# ") and previous.startswith("print(")
    ]


async def run(block: str, names: dict[str, Any]) -> list[str]:
    """Return the lines that a block prints. :param names: the variables, which the next block sees."""
    printed = io.StringIO()
    code = compile(block, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(printed):
        outcome = eval(code, names)
        if inspect.isawaitable(outcome):
            await outcome
    return printed.getvalue().splitlines()


def given(page: Path) -> dict[str, Any]:
    """Return the variables that a reader of the page has: the model of an AgentScope agent."""
    return {"model": scripted_model()} if any(", model," in block for block in blocks(page)) else {}


def scripted_model() -> Any:
    """Return a model of AgentScope that answers in the same words each time."""
    from agentscope.credential import CredentialBase
    from agentscope.formatter import OpenAIChatFormatter
    from agentscope.message import TextBlock
    from agentscope.model import ChatModelBase, ChatResponse

    class Polite(ChatModelBase):
        async def _call_api(self, *_: Any, **__: Any) -> ChatResponse:
            return ChatResponse(content=[TextBlock(text="I see.")], is_last=True)

    model: Any = Polite(CredentialBase(), "polite", Polite.Parameters(), stream=False)
    model.formatter = OpenAIChatFormatter()
    return model


async def differences(page: Path) -> AsyncIterator[str]:
    """Run the blocks of a page in the current folder, and yield what differs from the page."""
    names: dict[str, Any] = {"__name__": "__main__", **given(page)}
    for number, block in enumerate(blocks(page), start=1):
        printed = await run(block, names)
        if printed != promised(block):
            yield f"{page.name}: example {number} prints {printed} instead of {promised(block)}"


async def main(pages: list[Path]) -> int:
    """Run each page in an empty folder, and print what differs."""
    os.environ["SESSION_HISTORY_URL"] = "memory://"
    found: list[str] = []
    for page in pages:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            found += [difference async for difference in differences(page)]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(asyncio.run(main([Path(name).resolve() for name in sys.argv[1:]])))
