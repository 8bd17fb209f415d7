"""What several tests of Redis do."""

from __future__ import annotations

from typing import Any

from session_history.providers.redis import RedisProvider
from session_history_hooks.testing.subject import opened
from valkey_server import ValkeyServer


def started(url: str, **options: Any) -> Any:
    return opened(lambda: RedisProvider(url, **options))


def names(server: ValkeyServer, prefix: str) -> dict[str, str]:
    """The keys under a prefix, by the last part of their names; one session at the most."""
    with server.client(decode_responses=True) as client:
        return {str(name).rpartition(":")[2]: str(name) for name in client.scan_iter(f"{prefix}:*")}
