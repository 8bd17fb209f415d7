"""Functions that several tests of Redis share."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from servers.proxy import Proxy
from servers.valkey import ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history_hooks.testing.subject import opened

CHANGED = 1 + 4 * 8
"""Offset of the time of the last append in a head."""

EXPIRES = CHANGED + 8
"""Offset of the time when a head expires."""


def started(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    return opened(lambda: RedisProvider(url, **options))


def url_of(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


def stored_keys(server: ValkeyServer, prefix: str) -> dict[str, str]:
    """Return the keys under a prefix by the last part of their names. There must be at most one session.

    The last part of a key with pieces is the seq of their entry.
    """
    with server.client(decode_responses=True) as client:
        return {str(name).rpartition(":")[2]: str(name) for name in client.scan_iter(f"{prefix}:*")}


def expire(server: ValkeyServer, prefix: str, *, long_ago: bool = False) -> None:
    """Change the keys under a prefix as if the time to live of all sessions that have one were over.

    :param long_ago: for more than a second, so that the server has removed the heads, too; all sessions must have a
        time to live.
    """
    with server.client() as client:
        for name in list(client.scan_iter(f"{prefix}:*")):
            part = name.rpartition(b":")[2]
            if part in {b"entries", b"ids"} or part.isdigit() or (long_ago and part in {b"heads", b"index"}):
                if client.pttl(name) >= 0:
                    client.delete(name)
            elif part == b"heads":
                for session, head in client.hgetall(name).items():
                    if head[EXPIRES : EXPIRES + 8] != bytes(8):
                        past = struct.pack(">d", 1)
                        client.hset(name, session, head[:EXPIRES] + past + head[EXPIRES + 8 :])


async def round_trips(proxy: Proxy, call: Awaitable[object]) -> int:
    """Return the number of round trips that a call takes."""
    before = proxy.requests
    await call
    return proxy.requests - before


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> None:  # noqa: ASYNC109
    """Wait for a condition.

    :raises AssertionError: it was not met in time.
    """
    deadline = time.monotonic() + timeout
    while not await condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.01)
