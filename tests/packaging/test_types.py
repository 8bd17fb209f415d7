"""Tests of the types with two type checkers: right and wrong calls, and the public types."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support import ROOT, locked

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
    """A project that has the package installed, in an environment of its own. All workers use the same one.

    :param shares_dependencies: what the package and its extras need comes from the environment of the tests, where it
        was installed with the package. Pip would need a minute to install it again.
    """

    def __init__(self, folder: Path, *install: str, shares_dependencies: bool = False) -> None:
        self.folder = folder
        self.bin = folder / ".venv" / "bin"
        self.python = str(self.bin / "python")
        folder.mkdir(exist_ok=True)
        with locked(folder / "lock"):
            if not (folder / "calls.py").exists():
                self._build(install)
                if shares_dependencies:
                    self._share_dependencies()
                (folder / "calls.py").write_text(CALLS.read_text())

    def _build(self, install: tuple[str, ...]) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.bin.parent)], check=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python, "install", "-q"]
        subprocess.run([*pip, "--no-compile", *install], check=True, timeout=1200)
        (self.folder / "pyproject.toml").write_text(SETTINGS)

    def _share_dependencies(self) -> None:
        (packages,) = self.bin.parent.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

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
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the workers of one run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="module")
def of_wheel(projects: Path) -> User:
    return User(projects / "wheel-project", "--no-deps", str(ROOT), shares_dependencies=True)


@pytest.fixture(scope="module")
def of_tree(projects: Path) -> User:
    return User(projects / "editable-project", "--editable", str(ROOT))


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
