"""``examples/third_party_provider`` is installed as users install it, is found by URL, and keeps the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support import ROOT

EXAMPLE = ROOT / "examples" / "third_party_provider"

WRITE = """
import asyncio, sys
from session_history import Message, SessionHistoryService

async def main(url):
    async with SessionHistoryService.from_url(url) as service:
        session = await service.get_session("ada", "first")
        await service.append_message(session, Message(role="user", content="Hello"))
        print([message.text for message in (await service.get_session("ada", "first")).messages])

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example is installed to, outside of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    run = [*pip, "--no-build-isolation", "--target", str(folder), str(EXAMPLE)]
    subprocess.run(run, check=True, timeout=120)
    assert find_spec("session_history_files") is None
    return folder


def python(installed: Path, *arguments: str, folder: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_example_installs_one_module_and_one_entry_point(installed: Path) -> None:
    assert {path.name for path in installed.glob("*.py")} == {"session_history_files.py"}
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert points.read_text().split("\n")[:2] == ["[session_history]", "files = session_history_files"]


def test_service_finds_the_example_by_url_in_two_processes(installed: Path, tmp_path: Path) -> None:
    url = f"files:///{tmp_path}/a%20folder"
    assert python(installed, "-c", WRITE, url, folder=tmp_path) == "['Hello']\n"
    assert python(installed, "-c", WRITE, url, folder=tmp_path) == "['Hello', 'Hello']\n"
    assert (tmp_path / "a folder").is_dir()


def test_broken_plugin_does_not_affect_the_example(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[session_history]\nbroken = broken\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken at import')\n")
    assert python(installed, "-c", WRITE, "files:///store", folder=tmp_path) == "['Hello']\n"
    assert "'broken'" in python(installed, "-c", SCHEMES, folder=tmp_path)


SCHEMES = "from session_history.config.registry import installed_schemes; print(installed_schemes())"


def test_example_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    suite = tmp_path / "test_session_history_files.py"
    suite.write_text((EXAMPLE / suite.name).read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite), folder=tmp_path)
