"""Ports for test servers that are killed and started again on the same port."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

BUS = 10_000
"""The distance between the port of a Valkey cluster's node and its port for other nodes."""

FIRST, LAST = 10_000, 32_767 - BUS
"""Ports below those that the system gives to clients: these begin at 32,768 on Linux, at 49,152 by IANA. A client with
the port of a stopped server would keep the server from starting again.
"""


def free_port() -> int:
    """Return an unused port whose port for the cluster bus is unused too."""
    while True:
        port = random.SystemRandom().randint(FIRST, LAST)
        with suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + BUS))
            return port
