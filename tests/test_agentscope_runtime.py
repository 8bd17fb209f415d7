"""``session_history.runtimes.agentscope_runtime``: its tests run in an environment of its own, with agentscope 1.x."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED, missing
from session_history.errors import MissingDriver
from session_history.runtimes.agentscope_runtime import with_session_history

ROOT = Path(__file__).parents[1]
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
        run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
        run(*PIP, *requirements())
        complete.write_text(wanted, encoding="utf-8")
    run(*PIP, "--no-deps", "--no-build-isolation", "--force-reinstall", str(ROOT))
    return PYTHON


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        missing(f"no environment for agentscope-runtime: {' '.join(command)}\n{done.stderr[-2000:]}")


def test_with_the_unmodified_runtime(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(environment),
            "-m",
            "pytest",
            "tests/legacy_runtime",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "SESSION_HISTORY_TEST_SHARED": str(SHARED)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_without_the_runtime_the_extra_is_named() -> None:
    async def query(self: Any, msgs: Any, request: Any = None) -> AsyncIterator[Any]:
        yield

    with pytest.raises(MissingDriver, match=r"session-history\[agentscope-runtime\]"):
        with_session_history()(query)
