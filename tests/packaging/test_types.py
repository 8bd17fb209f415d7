"""Tests of the types with two type checkers: right and wrong calls, and the public types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

pytestmark = pytest.mark.xdist_group("types")  # one worker builds the environments, and only once

CALLS = Path(__file__).with_name("typing") / "calls.py"

SETTINGS = """
[tool.mypy]
strict = true

[tool.basedpyright]
typeCheckingMode = "strict"
enableTypeIgnoreComments = true
reportUnnecessaryTypeIgnoreComment = "error"
"""


class User:
    """A project that has the package installed, in an environment of its own."""

    def __init__(self, folder: Path, *install: str) -> None:
        self.folder = folder
        self.bin = folder / ".venv" / "bin"
        self.python = str(self.bin / "python")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.bin.parent)], check=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python, "install", "-q"]
        subprocess.run([*pip, *install], check=True, timeout=1200)
        (folder / "pyproject.toml").write_text(SETTINGS)
        (folder / "calls.py").write_text(CALLS.read_text())

    def run(self, tool: str, *arguments: str) -> str:
        """Run a checker of this environment in the user's; return its output if it found something."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        run = subprocess.run(
            [str(Path(sys.executable).with_name(tool)), *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "VIRTUAL_ENV": str(self.bin.parent)},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        return run.stdout + run.stderr if run.returncode else ""


@pytest.fixture(scope="module")
def of_wheel(tmp_path_factory: pytest.TempPathFactory) -> User:
    return User(tmp_path_factory.mktemp("wheel"), f"{ROOT}[agentscope,tablestore,testing]")


@pytest.fixture(scope="module")
def of_tree(tmp_path_factory: pytest.TempPathFactory) -> User:
    return User(tmp_path_factory.mktemp("editable"), "--editable", str(ROOT))


@pytest.fixture(params=["of_wheel", "of_tree"])
def user(request: pytest.FixtureRequest) -> User:
    made: User = request.getfixturevalue(request.param)
    return made


def test_mypy_accepts_the_calls_of_users(user: User) -> None:
    assert user.run("mypy", "--python-executable", user.python, "calls.py") == ""


def test_pyright_accepts_the_calls_of_users(user: User) -> None:
    assert user.run("basedpyright", "--pythonpath", user.python, "calls.py") == ""


@pytest.mark.parametrize("package", ["session_history", "session_history_hooks"])
def test_pyright_knows_every_public_type(of_wheel: User, package: str) -> None:
    assert of_wheel.run("basedpyright", "--verifytypes", package, "--ignoreexternal") == ""
