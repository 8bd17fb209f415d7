"""``session_history.runtimes.agentscope_runtime``: its tests run in an environment of its own, with agentscope 1.x."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED, missing
from session_history.errors import MissingDriver
from session_history.runtimes.agentscope_runtime import with_session_history
from support import ROOT

ENVIRONMENT = ROOT / ".venv-agentscope-runtime"
PYTHON = ENVIRONMENT / "bin" / "python"
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    build = project["build-system"]["requires"]
    return [*project["project"]["dependencies"], *extras["agentscope-runtime"], *extras["testing"], *build]


@pytest.fixture(scope="module")
def environment() -> Path:
    """Its interpreter. What it holds is kept for the next run, unless other requirements were written meanwhile."""
    complete = ENVIRONMENT / "complete"
    wanted = "\n".join([sys.version, *requirements()])
    if not complete.is_file() or complete.read_text(encoding="utf-8") != wanted:
        complete.unlink(missing_ok=True)
        build([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
        build([*PIP, *requirements()])
        complete.write_text(wanted, encoding="utf-8")
    run([*PIP, "--no-deps", "--no-build-isolation", "--force-reinstall", str(ROOT)])
    return PYTHON


def build(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    except subprocess.CalledProcessError as error:
        missing(f"the environment of agentscope-runtime could not be built: {error}\n{error.stderr[-2000:]}")
    except subprocess.TimeoutExpired as error:
        missing(f"the environment of agentscope-runtime could not be built: {error}")


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environment_has_the_runtime_and_its_own_agentscope(environment: Path) -> None:
    names = ("agentscope", "agentscope-runtime", "session-history")
    code = f"from importlib.metadata import version; print(*map(version, {names}))"
    agentscope, runtime, ours = run([str(environment), "-I", "-c", code]).split()
    assert (agentscope.split(".")[0], runtime.split(".")[0]) == ("1", "1")
    assert ours == version("session-history")


def test_with_the_unmodified_runtime(environment: Path, tmp_path: Path) -> None:
    pytest_ = [str(environment), "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base")]
    told = run([*pytest_, "tests/runtimes/agentscope_runtime/suite"], SESSION_HISTORY_TEST_SHARED=str(SHARED))
    assert " passed" in told


def test_without_the_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "agentscope_runtime", None)

    async def query(self: Any, msgs: Any, request: Any = None) -> AsyncIterator[Any]:
        yield

    with pytest.raises(MissingDriver, match=r"session-history\[agentscope-runtime\]"):
        with_session_history()(query)
