"""Runs of the contract suite, one process each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from mutants.bugs import BUGS
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionHistoryProvider

TESTS = Path(__file__).parents[1]

HEALTHY: dict[str, type[SessionHistoryProvider]] = {"memory": MemoryProvider, "sqlite": SqliteProvider}

PROVIDERS = {**HEALTHY, **BUGS}

COMPILED = tempfile.TemporaryDirectory()
"""The compiled modules, which all runs share: a run without them compiles each test module."""


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


def run(name: str, *, to_the_end: bool = True) -> Run:
    """Run the suite on one provider.

    :param to_the_end: false = stop at the first test that fails.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        suite = [str(Path(__file__).with_name("suite.py")), f"--junitxml={report}", f"--basetemp={folder}/tests"]
        if not to_the_end:
            suite.append("--exitfirst")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *suite],
            cwd=TESTS.parent,
            env={
                **os.environ,
                "MUTANT": name,
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPYCACHEPREFIX": COMPILED.name,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [_title(case) for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return Run(name, len(cases), tuple(dict.fromkeys(failed)), done.stdout, time.monotonic() - began)


def _title(case: ET.Element) -> str:
    """Return the name of a test, without its parameters."""
    if "AtRandom" in case.attrib["classname"]:
        return "the state machine"
    return case.attrib["name"].partition("[")[0].removeprefix("test_")
