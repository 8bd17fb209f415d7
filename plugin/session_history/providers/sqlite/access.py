"""Access to the file: the users of this host that may read it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import Literal, get_args

from session_history_hooks import StoreReadOnly, Unavailable

logger: logging.Logger = logging.getLogger("session_history")

Access = Literal["owner", "group"]

ACCESS: tuple[str, ...] = get_args(Access)

DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}

_MODES = {"owner": 0o600, "group": 0o660}


def create(path: Path, access: Access) -> None:
    """Create an empty file that only its owner or its group can read, unless the file exists.

    SQLite gives the files next to it the same mode. A file that exists keeps its own.

    :raises StoreReadOnly: this user may not create it.
    :raises Unavailable: it cannot be created.
    """
    try:
        _create(path.resolve(), _MODES[access])  # a symbolic link may name a file that does not exist yet
    except FileExistsError:
        return
    except OSError as error:
        kind = StoreReadOnly if error.errno in DENIED else Unavailable
        raise kind(f"{path} cannot be created: {error.strerror}") from None


def _create(path: Path, mode: int) -> None:
    created = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        if os.name == "posix":
            os.fchmod(created, mode)  # the umask does not count
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
