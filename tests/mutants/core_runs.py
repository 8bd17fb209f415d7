"""Runs of tests on a copy of the library with one bug planted into its source, one process each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import session_history

PACKAGE = Path(session_history.__file__).parent

TESTS = Path(__file__).parents[1]

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
    began, timeout = time.monotonic(), TIMEOUT + 10 * len(tests)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy)
        if bug is not None:
            (copy / bug.path).write_text(bug.planted(), encoding="utf-8")
        paths = [folder, os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider"]
        files, names = zip(*(test.split("::") for test in tests), strict=True)
        command += [f"--basetemp={folder}/tests", *(str(TESTS / file) for file in sorted({*files}))]
        command += ["-k", " or ".join(sorted({*names}))]
        try:
            done = subprocess.run(
                command,
                cwd=TESTS.parent,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return CoreRun(False, False, f"no end within {timeout} s", time.monotonic() - began)
    code = done.returncode
    return CoreRun(code == 0, code == FAILED, done.stdout, time.monotonic() - began)


def run_own_test(bug: CoreBug) -> CoreRun:
    """Run the test that catches a bug, with the bug."""
    return run(bug, [bug.test])
