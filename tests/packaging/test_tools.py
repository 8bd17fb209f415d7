"""Tests of the tools around the code: dependency groups, the targets of the Makefile, and the hooks of a commit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support import PRELOADED, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

EXTRAS_OF_USERS = {"agentscope", "agentscope-runtime", "postgresql", "redis", "tablestore", "testing"}


def dry_run(target: str) -> str:
    """Return the commands that ``make`` would run."""
    command = ["make", "--dry-run", "--directory", str(ROOT), target]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_extras_are_those_that_users_need() -> None:
    assert set(PROJECT["project"]["optional-dependencies"]) == EXTRAS_OF_USERS


@pytest.mark.parametrize("target", ["install", "bench", "path", "dist"])
def test_target_that_installs_tools_has_a_pip_that_knows_groups(target: str) -> None:
    commands = dry_run(target)
    (group,) = re.findall(r"--group (\S+)", commands)
    assert group in PROJECT["dependency-groups"]
    assert commands.index("'pip>=25.1'") < commands.index("--group")


def test_demo_without_uv_shows_the_progress_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nexit 127\n")  # a shim of a version manager, without the program
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "pip --disable-pip-version-check install '.[agentscope]'" in dry_run("demo")
    assert "--quiet" not in dry_run("demo")


def test_demo_with_uv_installs_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert f"{uv} pip install --python .venv/bin/python" in dry_run("demo")


def test_hooks_of_a_commit_are_the_commands_of_make_lint() -> None:
    recipe = re.search(r"^lint: install\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    entries = re.findall(r"entry: (.*)", hooks)
    assert entries == [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert set(re.findall(r"repo: (.*)", hooks)) == {"local"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the threads of a process")
def test_modules_that_processes_share_start_no_thread() -> None:
    program = f"import os\nfor name in {PRELOADED}: __import__(name)\nprint(len(os.listdir('/proc/self/task')))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
