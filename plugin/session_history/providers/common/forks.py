"""Guards against the use of connections, locks and threads that a forked process inherits from its parent."""

from __future__ import annotations

import os
from weakref import WeakSet

from session_history_hooks import Unavailable


class ForkGuard:
    """Remembers the process that opened a store, and refuses to work in a process that was forked from it.

    A child shares its parent's sockets, file locks and event loop, and has none of its parent's threads. The check
    reads an attribute: a system call on each use costs a microsecond where a sandbox watches them.

    :param name: the store's name in the error, without a password.
    :param remedy: what to do instead, for the error.
    :ivar inherited: True in a process that was forked after the guard was made.
    """

    def __init__(self, name: str, remedy: str = "open it after the fork, or spawn") -> None:
        self._name = name
        self._remedy = remedy
        self.inherited = False
        _GUARDS.add(self)

    def require_own_process(self) -> None:
        """Raise an error in a forked process.

        :raises Unavailable: a parent of this process made the guard.
        """
        if self.inherited:
            raise Unavailable(f"{self._name} was open when this process was forked; {self._remedy}")


def keep_after_fork(resource: object) -> None:
    """Keep an object alive in each child process, where the garbage collector would otherwise close what it holds.

    A child shares the parent's epoll instance. Closing a transport there makes the parent deaf to that connection.
    """
    _KEPT_AFTER_FORK.add(resource)


_GUARDS: WeakSet[ForkGuard] = WeakSet()
_KEPT_AFTER_FORK: WeakSet[object] = WeakSet()
_INHERITED: list[object] = []


def _enter_child() -> None:
    for guard in _GUARDS:
        guard.inherited = True
    _INHERITED.extend(_KEPT_AFTER_FORK)


if hasattr(os, "register_at_fork"):  # Windows has no forks.
    os.register_at_fork(after_in_child=_enter_child)
