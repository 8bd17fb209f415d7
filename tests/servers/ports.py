"""Ports for throwaway servers that are killed and started again at the same place."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

BUS = 10_000
"""How far above its port a node of a Valkey cluster listens to the other nodes."""

FIRST, LAST = 10_000, 32_767 - BUS
"""Below the ports that the system gives to clients (from 32,768 on Linux, from 49,152 by IANA): a client that got the
port of a server that is down would keep it from coming up again."""


def free_port() -> int:
    """A port that nobody uses, and so is the one of the bus above it."""
    while True:
        port = random.SystemRandom().randint(FIRST, LAST)
        with suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + BUS))
            return port
