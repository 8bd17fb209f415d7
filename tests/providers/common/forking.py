"""Runs work in a fork of the test process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def holds_in_child(check: Callable[[], bool]) -> bool:
    """Return what ``check`` returns in a forked child, or ``False`` if it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Newer Pythons warn of a fork of a process with threads.
        child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
