"""Functions that several folders of tests share."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
ROOT = TESTS.parent

PROGRAMS = TESTS / "programs"
"""Programs that tests start as processes."""

CORPORA = TESTS / "corpora"
"""Conversations and strings of this project. They are enough for every test."""

CORPORA_VARIABLE = "SESSION_HISTORY_TEST_CORPORA"
"""The environment variable that names one more folder laid out as :data:`CORPORA`."""

PRELOADED = [
    "asyncpg",
    "hypothesis.stateful",
    "pytest",
    "pytest_asyncio.plugin",
    "redis.asyncio.cluster",
    "session_history.providers.sqlite",
    "session_history_hooks.testing",
    "histories.client",
    "mutants.bugs",
]
"""Modules that the server of processes imports once, so that not every process of a test does it again.

One worker has one server, so all that start processes name the same modules. Those of the tests are imported only if
the first of them has the tests on its path.
"""


def more_corpora() -> list[Path]:
    """Return the folders that are tested in addition to :data:`CORPORA`."""
    more = os.environ.get(CORPORA_VARIABLE)
    return [Path(more)] if more else []


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def same(one: object, other: object) -> bool:
    """Return True if both are equal in type, value and order of keys, recursively."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def compiled_disk(folder: Path) -> Path:
    """Compile ``programs/disk.c`` to a library. :raises OSError: there is no compiler."""
    library = folder / "disk.so"
    source = PROGRAMS / "disk.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def preloaded(library: Path) -> dict[str, str]:
    """Return the environment of a process in which a library replaces functions of the system."""
    return {**os.environ, "LD_PRELOAD": str(library)}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the workers of pytest-xdist share. :param path: a file, made if it is missing."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
