"""Runs of the contract suite, one process each."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from mutants.bugs import BUGS
from mutants.catchers import CATCHERS
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionHistoryProvider
from support import PRELOADED

TESTS = Path(__file__).parents[1]

HEALTHY: dict[str, type[SessionHistoryProvider]] = {"memory": MemoryProvider, "sqlite": SqliteProvider}

PROVIDERS = {**HEALTHY, **BUGS}

FORKS = multiprocessing.get_context("forkserver")
"""Each run is a fork of a process that has imported what they all need, which takes longer than most of the tests."""

FORKS.set_forkserver_preload(PRELOADED)

IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"
"""The filter of the warnings that modules were imported before pytest could rewrite them."""

TIMEOUT = 600
"""Seconds after which a run is killed."""


@dataclass(frozen=True)
class Run:
    """The outcome of the suite for one provider."""

    name: str
    tests: int
    failed: tuple[str, ...]
    output: str
    seconds: float

    @property
    def as_expected(self) -> bool:
        return self.tests > 0 and bool(self.failed) == (self.name in BUGS)


def catch(bug: str) -> Run:
    """Run the suite up to the first test that fails, and before it the test that is known to catch the bug."""
    found = run(bug, to_the_end=False, only=CATCHERS[bug]) if bug in CATCHERS else None
    return found if found and found.failed else run(bug, to_the_end=False)


def run(name: str, *, to_the_end: bool = True, only: str = "") -> Run:
    """Run the suite on one provider.

    :param to_the_end: false = stop at the first test that fails.
    :param only: the part of a name that a test must have.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report, output = Path(folder) / "report.xml", Path(folder) / "output"
        arguments = [
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "-W",
            IMPORTED,
            str(Path(__file__).with_name("suite.py")),
        ]
        arguments += [f"--junitxml={report}", f"--basetemp={folder}/tests", *([] if to_the_end else ["--exitfirst"])]
        arguments += ["-k", only] if only else []
        process = FORKS.Process(target=_run_suite, args=(name, arguments, output))
        process.start()
        process.join(TIMEOUT)
        process.kill()
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
        shown = output.read_text(encoding="utf-8") if output.exists() else ""
    failed = [_title(case) for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return Run(name, len(cases), tuple(dict.fromkeys(failed)), shown, time.monotonic() - began)


def _run_suite(name: str, arguments: Sequence[str], output: Path) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["MUTANT"] = name
    os.chdir(TESTS.parent)
    sys.exit(pytest.main([*arguments]))


def _title(case: ET.Element) -> str:
    """Return the name of a test, without its parameters."""
    if "AtRandom" in case.attrib["classname"]:
        return "the state machine"
    return case.attrib["name"].partition("[")[0].removeprefix("test_")
