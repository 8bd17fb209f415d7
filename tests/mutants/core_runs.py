"""Runs of tests on a copy of the library with one bug planted into its source, one process each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

import session_history
from mutants.runs import FORKS, IMPORTED, TESTS

PACKAGE = Path(session_history.__file__).parent

TIMEOUT = 120
"""Seconds for a test: a bug that makes it hang is not caught."""

FAILED = 1
"""The exit code of pytest if tests ran and some failed. An error in the collection has another one."""


class CoreBug(NamedTuple):
    """A bug of the library.

    :ivar seen: what a user would see.
    :ivar path: the module, below the package.
    :ivar old: the source that the bug replaces; it stands there once.
    :ivar new: what takes its place.
    :ivar test: the test that catches the bug: its file below ``tests``, ``::``, and its name.
    """

    seen: str
    path: str
    old: str
    new: str
    test: str

    def planted(self) -> str:
        """Return the source with the bug. :raises LookupError: the source has changed since the bug was written."""
        source = (PACKAGE / self.path).read_text(encoding="utf-8")
        if (count := source.count(self.old)) != 1:
            raise LookupError(f"{self.path} has {self.old!r} {count} times; change the bug {self.seen!r}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class CoreRun:
    """The outcome of some tests.

    :ivar failed: tests ran, and some failed.
    """

    passed: bool
    failed: bool
    output: str
    seconds: float


def run(bug: CoreBug | None, tests: Sequence[str]) -> CoreRun:
    """Run tests on a copy of the library, with a bug or without one."""
    began = time.monotonic()
    files, names = zip(*(test.split("::") for test in tests), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        copy, output = Path(folder) / PACKAGE.name, Path(folder) / "output"
        shutil.copytree(PACKAGE, copy)
        if bug is not None:
            (copy / bug.path).write_text(bug.planted(), encoding="utf-8")
        arguments = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-W", IMPORTED, f"--basetemp={folder}/tests"]
        arguments += [*(str(TESTS / file) for file in sorted({*files})), "-k", " or ".join(sorted({*names}))]
        process = FORKS.Process(target=_run_tests, args=(folder, arguments, output))
        process.start()
        process.join(TIMEOUT + 10 * len(tests))
        process.kill()
        code = process.exitcode
        shown = output.read_text(encoding="utf-8") if output.exists() else ""
    return CoreRun(code == 0, code == FAILED, shown or f"no output; exit code {code}", time.monotonic() - began)


def _run_tests(folder: str, arguments: Sequence[str], output: Path) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(TESTS.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] in {PACKAGE.name, "contract"}]:
        del sys.modules[name]  # what the fork was made with, without the bug
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
    sys.exit(pytest.main([*arguments]))


def run_own_test(bug: CoreBug) -> CoreRun:
    """Run the test that catches a bug, with the bug."""
    return run(bug, [bug.test])
