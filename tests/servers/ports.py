"""Ports for test servers that are killed and started again on the same port.

A port belongs to the process that took it, also while the server is down, so that no other process of the tests gives
it to a server of its own: each port is a byte of a file, which its process has locked.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

BUS = 10_000
"""The distance between the port of a Valkey cluster's node and its port for other nodes."""

FIRST, LAST = 10_000, 32_767 - BUS
"""Ports below those that the system gives to clients: these begin at 32,768 on Linux, at 49,152 by IANA. A client with
the port of a stopped server would keep the server from starting again.
"""

_RESERVED: set[int] = set()
"""Ports of this process, which its own locks do not keep from itself."""


def free_port() -> int:
    """Return an unused port whose port for the cluster bus is unused too. Both belong to this process from now on."""
    while True:
        port = random.SystemRandom().randint(FIRST, LAST)
        if reserve(port):
            with suppress(OSError), socket.socket() as one, socket.socket() as bus:
                one.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + BUS))
                return port
            give_back(port)


def reserve(port: int) -> bool:
    """Take a port and its port for the cluster bus. Return whether both belonged to nobody."""
    pair = {port, port + BUS}
    if pair & _RESERVED:
        return False
    taken = {each for each in pair if _lock(each, fcntl.LOCK_EX | fcntl.LOCK_NB)}
    if taken != pair:
        for each in taken:
            _lock(each, fcntl.LOCK_UN)
        return False
    _RESERVED.update(pair)
    return True


def give_back(port: int) -> None:
    """Let other processes have a port and its port for the cluster bus."""
    for each in (port, port + BUS):
        _RESERVED.discard(each)
        _lock(each, fcntl.LOCK_UN)


def _lock(port: int, how: int) -> bool:
    with suppress(BlockingIOError, PermissionError):
        fcntl.lockf(_locks(os.getpid()), how, 1, port)
        return True
    return False


@functools.cache
def _locks(_process: int) -> int:
    """Return the file of all processes. It stays open: locks end when any descriptor of their file is closed."""
    path = Path(tempfile.gettempdir()) / f"session-history-ports-{os.geteuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
