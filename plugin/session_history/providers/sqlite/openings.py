"""The files that this process has open, or that its parent had open when it was forked.

A child of a fork inherits SQLite's list of the locks that its parent holds. The child would believe that it holds
these locks, and would lose what it writes. So a process must not open a file that it inherited open.
"""

from __future__ import annotations

from pathlib import Path

from session_history.providers.common.forks import ForkGuard
from session_history.providers.sqlite.file import Identity, identity

Opening = tuple[Identity, ForkGuard]

_OPEN: set[Opening] = set()


def require_not_inherited(path: Path) -> None:
    """Raise an error for a file that a parent of this process had open.

    :raises Unavailable: it had.
    """
    if path.exists():
        found = identity(path)
        for file, guard in list(_OPEN):
            if file == found:
                guard.require_own_process()


def register(path: Path, guard: ForkGuard) -> Opening:
    """Remember that the file is open."""
    opening = identity(path), guard
    _OPEN.add(opening)
    return opening


def unregister(opening: Opening) -> None:
    """Forget an opening of this process. One of its parent stays, because the parent still has the file open."""
    if not opening[1].inherited:
        _OPEN.discard(opening)
