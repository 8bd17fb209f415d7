"""Tests of the distribution that users install."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distribution, entry_points
from importlib.resources import files

import pytest
from hatchling.builders.wheel import WheelBuilder

from support import ROOT

CODE = (".py", ".lua")


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
    assert "session_history_hooks/testing/contract.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_every_module_of_the_tree(wheel: zipfile.ZipFile) -> None:
    roots = (ROOT / "hooks", ROOT / "plugin")
    modules = {path.relative_to(root).as_posix() for root in roots for kind in CODE for path in root.rglob(f"*{kind}")}
    assert modules == {name for name in wheel.namelist() if name.endswith(CODE)}
    assert any(name.endswith(".lua") for name in modules)


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
