"""The interpreters of this machine for the versions of Python that the package supports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


class PythonNotFound(Exception):
    """An interpreter of a supported version is not on this machine."""

    def __init__(self, version: str) -> None:
        super().__init__(f"Python {version} was not found. Install it, or put python{version} on the PATH.")


def supported_pythons(project: Path) -> dict[str, Path]:
    """Return an interpreter for each version that the classifiers name.

    :param project: the ``pyproject.toml``.
    :raises PythonNotFound: an interpreter is missing.
    """
    versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project.read_text(encoding="utf-8"))
    return {version: find_python(version) for version in versions}


def find_python(version: str) -> Path:
    """Return an interpreter of a version. :raises PythonNotFound: no interpreter has it."""
    for candidate in candidates(version):
        command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        if run.stdout.strip() == version:
            return candidate
    raise PythonNotFound(version)


def candidates(version: str) -> Iterator[Path]:
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    # A shim of pyenv on the PATH refuses versions that are installed, but not chosen.
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin/python"))
