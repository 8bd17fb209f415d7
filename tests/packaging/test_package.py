"""Tests of the distribution that users install."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution, entry_points
from importlib.resources import files
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from support import ROOT

CODE = (".py", ".lua")

FOLDERS = (".ci", "docs", "examples", "hooks", "plugin", "tests")
MADE = {"__pycache__", "_build"}
"""Folders that tools leave among the sources."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    return zipfile.ZipFile(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_wheel_holds_only_two_typed_packages(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "session_history",
        "session_history_hooks",
    }
    assert {"session_history/py.typed", "session_history_hooks/py.typed"} <= set(names)
    assert {"session_history_hooks/testing/contract.py", "session_history/AGENTS.md"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_every_module_of_the_tree(wheel: zipfile.ZipFile) -> None:
    roots = (ROOT / "hooks", ROOT / "plugin")
    modules = {path.relative_to(root).as_posix() for root in roots for kind in CODE for path in root.rglob(f"*{kind}")}
    assert modules == {name for name in wheel.namelist() if name.endswith(CODE)}
    assert any(name.endswith(".lua") for name in modules)


def test_sdist_holds_all_that_make_test_needs(tmp_path: Path) -> None:
    with tarfile.open(next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path)))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    files_of_root = {path.name for path in ROOT.glob("*.md")} | {"LICENSE", "Makefile", "pyproject.toml"}
    assert files_of_root | {".gitignore", ".pre-commit-config.yaml"} <= names
    sources = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert {path.relative_to(ROOT).as_posix() for path in sources if MADE.isdisjoint(path.parts)} <= names


def test_installed_distribution_has_metadata_and_entry_points() -> None:
    found = distribution("session-history")
    assert found.metadata["License-Expression"] == "Apache-2.0"
    assert found.metadata["Requires-Python"] == ">=3.11"
    assert {"memory", "redis", "sqlite"} <= {point.name for point in entry_points(group="session_history")}
    for package in ("session_history", "session_history_hooks"):
        assert (files(package) / "py.typed").is_file()


def test_import_loads_no_driver_and_no_runtime() -> None:
    code = (
        "import sys, session_history, session_history_hooks;"
        "print(*(sys.modules.keys() & {'sqlite3', 'asyncpg', 'redis', 'tablestore', 'agentscope', 'pytest', 'orjson'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == []


def test_contract_suite_without_pytest_names_its_extra() -> None:
    code = "import sys; sys.modules['pytest'] = None; import session_history_hooks.testing"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert "pip install 'session-history[testing]'" in run.stderr
