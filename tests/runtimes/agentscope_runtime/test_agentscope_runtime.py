"""Tests of ``session_history.runtimes.agentscope_runtime``, run in an environment that has agentscope 1.x."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from session_history.errors import MissingDriver
from session_history.runtimes.agentscope_runtime import with_session_history
from support import CORPORA_VARIABLE, ROOT, locked, more_corpora

ENVIRONMENT = ROOT / ".venv-agentscope-runtime"
PYTHON = ENVIRONMENT / "bin" / "python"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(PYTHON), "install", "--quiet"]

BUILD_TIMEOUT = 30 * 60
"""Seconds for a command that builds the environment: pip may load all of its packages over a slow connection."""

SUITE_TIMEOUT = 20 * 60
"""Seconds for the tests in the environment, on a busy machine."""


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    build = project["build-system"]["requires"]
    return [*project["project"]["dependencies"], *extras["agentscope-runtime"], *extras["testing"], *build]


@pytest.fixture(scope="module")
def environment() -> Iterator[Path]:
    """Build the environment, and yield its interpreter. Workers use the environment one after the other."""
    # The watchdog of pytest would end the whole run after 300 seconds.
    faulthandler.cancel_dump_traceback_later()
    with locked(ENVIRONMENT.with_suffix(".lock")):
        build()
        yield PYTHON


def build() -> None:
    """Install the package, and all that it needs if the requirements changed."""
    complete = ENVIRONMENT / "complete"
    wanted = "\n".join([sys.version, *requirements()])
    if not complete.is_file() or complete.read_text(encoding="utf-8") != wanted:
        complete.unlink(missing_ok=True)
        run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)], timeout=BUILD_TIMEOUT)
        run([*PIP, "--no-compile", *requirements()], timeout=BUILD_TIMEOUT)
        complete.write_text(wanted, encoding="utf-8")
    run([*PIP, "--no-deps", "--no-build-isolation", "--force-reinstall", str(ROOT)], timeout=BUILD_TIMEOUT)


def run(command: list[str], *, timeout: float, **environment: str) -> str:
    """Run a command and return its output. A command that fails or takes too long fails the test with its output."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")
        pytest.fail(f"{' '.join(command)} took more than {timeout} seconds\n{output}")
    if done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def test_environment_has_the_runtime_and_agentscope_1(environment: Path) -> None:
    names = ("agentscope", "agentscope-runtime", "session-history")
    code = f"from importlib.metadata import version; print(*map(version, {names}))"
    agentscope, runtime, ours = run([str(environment), "-I", "-c", code], timeout=600).split()
    assert (agentscope.split(".")[0], runtime.split(".")[0]) == ("1", "1")
    assert ours == version("session-history")


@pytest.mark.corpus
def test_suite_passes_with_the_unmodified_runtime(environment: Path, tmp_path: Path) -> None:
    faulthandler.cancel_dump_traceback_later()  # as in the fixture
    folders = more_corpora()
    more = {CORPORA_VARIABLE: str(folders[0])} if folders else {}
    tests = ["-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base"), "tests/runtimes/agentscope_runtime/suite"]
    output = run([str(environment), "-m", "pytest", *tests], timeout=SUITE_TIMEOUT, **more)
    assert " passed" in output
    assert " skipped" not in output


def test_decorator_without_the_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "agentscope_runtime", None)

    async def query(self: Any, msgs: Any, request: Any = None) -> AsyncIterator[Any]:
        yield

    with pytest.raises(MissingDriver, match=r"session-history\[agentscope-runtime\]"):
        with_session_history()(query)
