"""Access to the file: the users of this host that may read it."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

logger: logging.Logger = logging.getLogger("session_history")

Access = Literal["owner", "group"]

ACCESS: tuple[str, ...] = get_args(Access)

_MODES = {"owner": 0o600, "group": 0o660}


def create(path: Path, access: Access) -> None:
    """Create an empty file that only its owner or its group can read, unless the file exists.

    SQLite gives the files next to it the same mode. A file that exists keeps its own.

    :raises OSError: the file cannot be created.
    """
    target = path.resolve()  # a symbolic link may name a file that does not exist yet
    with suppress(FileExistsError):
        created = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            if os.name == "posix":
                os.fchmod(created, _MODES[access])  # the umask does not count
        finally:
            os.close(created)


def warn_of_others(path: Path) -> None:
    """Log a warning if other users of this host can read the file, or put another one in its place."""
    if os.name != "posix":
        return
    target = path.resolve()
    if target.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        logger.warning("%s: other users can read the file; chmod o-rw makes it private", path)
    if target.parent.stat().st_mode & stat.S_IWOTH:
        logger.warning("%s: other users can write to its folder, and replace the file", path)
