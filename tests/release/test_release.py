"""Tests of ``make dist``: the interpreters that it finds, and the pages whose examples it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs import examples
from release.pythons import PythonNotFound, find_python, supported_pythons
from support import ROOT

CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
EXAMPLE = "```python\nprint(1)\n# {}\n```\n"


def test_missing_python_is_named(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('classifiers = ["Programming Language :: Python :: 3.99"]')
    with pytest.raises(PythonNotFound, match=r"^Python 3\.99 was not found\. Install it"):
        supported_pythons(project)


def test_python_of_another_version_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3.99").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PythonNotFound):
        find_python("3.99")


def test_python_that_only_pyenv_has_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "versions" / f"{CURRENT}.1" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert find_python(CURRENT) == folder / "python"


@pytest.mark.parametrize(("promise", "code"), [("1", 0), ("2", 1)])
def test_examples_of_a_page_that_lies_are_an_error(tmp_path: Path, promise: str, code: int) -> None:
    page = tmp_path / "page.md"
    page.write_text(EXAMPLE.format(promise))
    program = ROOT / "tests" / "docs" / "examples.py"
    run = subprocess.run([sys.executable, "-I", program, page], check=False, capture_output=True, text=True)
    assert run.returncode == code
    assert run.stdout == ("page.md: example 1 prints ['1'] instead of ['2']\n" if code else "")


def test_examples_without_blocks_are_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```py\nnot_run()\n```\n")
    assert examples.blocks(page) == []
