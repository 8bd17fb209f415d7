"""Pages that a reader follows with files and a shell. All their blocks are run, in the order of the page.

- A block whose first line is a comment with a file name, such as ``# app.py``, is written to this file.
- A ``console`` block has commands behind ``$``, each with its output below. ``...`` stands for any text in a line, and
  a line of ``...`` for any lines.
- Any other ``python`` block is an example: see :mod:`docs.examples`.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from docs.examples import promised, run

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w./-]+\.\w+)\n")
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)

PREPARING = ("cd ", "docker ", "mkdir ", "pip ", "python3 -m venv ", "source ")
"""Beginnings of commands that are not run: the tests have a folder, an environment with the package, and servers."""

SERVING = ("uvicorn ",)
"""Beginnings of commands that go on until another one begins, or the page ends."""

TIMEOUT = 60.0
"""Seconds for a command, or for the output of a server."""

FOREIGN = re.compile(r"PYTEST|SESSION_HISTORY|PYTHONUNBUFFERED|COLUMNS|.*_API_KEY")
"""Variables of the tests' own environment that a reader does not have."""


class Command(NamedTuple):
    line: str
    output: str

    def printed(self, output: str) -> bool:
        """Tell whether an output is the one of the page."""
        pattern = "".join(map(_pattern, _lines(self.output)))
        return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(output))) is not None


def _lines(output: str) -> list[str]:
    return [line.rstrip() for line in output.strip().splitlines()]


def _pattern(line: str) -> str:
    """Return what a line of the page stands for, as a regular expression."""
    return r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"


def is_walkthrough(page: Path) -> bool:
    """Tell whether a page has commands to follow."""
    return "```console\n" in page.read_text(encoding="utf-8")


def files(page: Path) -> dict[str, str]:
    """Return the files of a page, by their names."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return {name[1]: block for _, block in found if (name := FILE_NAME.match(block))}


def commands(block: str) -> list[Command]:
    return [Command(*found) for found in COMMAND.findall(block)]


class Shell:
    """Runs commands in a folder as a reader's terminals do: ``python`` is the interpreter of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[bytes] | None = None
        self._environment = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        self._environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def differences(self, command: Command) -> Iterator[str]:
        """Run a command, and yield how its output differs from that of the page."""
        if command.line.startswith(PREPARING):
            return
        if command.line.startswith("export "):
            name, _, value = shlex.split(command.line)[1].partition("=")
            self._environment[name] = value
            return
        output = self._serve(command) if command.line.startswith(SERVING) else self._run(command)
        if not command.printed(output):
            yield f"$ {command.line}\nprints\n{output}\ninstead of\n{command.output}"

    def _run(self, command: Command) -> str:
        done = subprocess.run(
            command.line, shell=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=self._folder, env=self._environment, timeout=TIMEOUT,
        )  # fmt: skip
        return done.stdout

    def _serve(self, command: Command) -> str:
        """Start a server; return its output once that is the one of the page, or the server or the time has ended."""
        self.close()
        log = self._folder / "server.log"
        with log.open("w") as output:
            server = self._server = subprocess.Popen(
                shlex.split(command.line), stdout=output, stderr=subprocess.STDOUT,
                cwd=self._folder, env=self._environment,
            )  # fmt: skip
        deadline = time.monotonic() + TIMEOUT
        while not command.printed(log.read_text()) and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return log.read_text()

    def close(self) -> None:
        """Stop the server as Ctrl-C does."""
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(signal.SIGINT)
        try:
            server.wait(TIMEOUT)
        finally:
            server.kill()


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    opened = Shell(folder)
    try:
        yield opened
    finally:
        opened.close()


async def differences(page: Path, folder: Path, replaced: Mapping[str, str]) -> AsyncIterator[str]:
    """Follow a page in an empty folder, and yield what differs from it.

    :param replaced: texts of the page, such as a port, and what stands for them in the tests.
    """
    text = page.read_text(encoding="utf-8")
    for old, new in replaced.items():
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "__main__"}
    with shell(folder) as opened:
        for language, block in BLOCK.findall(text):
            if file := FILE_NAME.match(block):
                (folder / file[1]).write_text(block, encoding="utf-8")
            elif language == "console":
                for command in commands(block):
                    for difference in opened.differences(command):
                        yield difference
            elif language == "python":
                printed = await run(block, names)
                if printed != promised(block):
                    yield f"{block}\nprints {printed} instead of {promised(block)}"
