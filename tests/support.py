"""Functions that several tests share."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
ROOT = TESTS.parent

PROGRAMS = TESTS / "programs"
"""What tests start as processes of their own."""


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def same(one: object, other: object) -> bool:
    """Equal in the design's sense: in type, value and order of keys, recursively."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def compiled_disk(folder: Path) -> Path:
    """``programs/disk.c`` as a library. :raises OSError: there is no compiler."""
    library = folder / "disk.so"
    source = PROGRAMS / "disk.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def preloaded(library: Path) -> dict[str, str]:
    """The environment of a process in which a library's functions stand before those of the system."""
    return {**os.environ, "LD_PRELOAD": str(library)}
