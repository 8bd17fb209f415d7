"""What several tests of Redis do."""

from __future__ import annotations

import struct
from typing import Any

from servers.valkey import ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history_hooks.testing.subject import opened

ACTIVE = 1 + 4 * 8
"""Where a head has the time of the last append."""

EXPIRES = ACTIVE + 8
"""Where it has the time when it expires."""


def started(url: str, **options: Any) -> Any:
    return opened(lambda: RedisProvider(url, **options))


def names(server: ValkeyServer, prefix: str) -> dict[str, str]:
    """The keys under a prefix, by the last part of their names; one session at the most."""
    with server.client(decode_responses=True) as client:
        return {str(name).rpartition(":")[2]: str(name) for name in client.scan_iter(f"{prefix}:*")}


def expire(server: ValkeyServer, prefix: str, *, long_ago: bool = False) -> None:
    """As if the time of all sessions that may expire were up.

    :param long_ago: for more than a second, so that their heads are gone, too; there must be no others.
    """
    with server.client() as client:
        for name in list(client.scan_iter(f"{prefix}:*")):
            part = name.rpartition(b":")[2]
            if part in {b"entries", b"ids"} or (long_ago and part in {b"heads", b"index"}):
                if client.pttl(name) >= 0:
                    client.delete(name)
            elif part == b"heads":
                for session, head in client.hgetall(name).items():
                    if head[EXPIRES : EXPIRES + 8] != bytes(8):
                        past = struct.pack(">d", 1)
                        client.hset(name, session, head[:EXPIRES] + past + head[EXPIRES + 8 :])
