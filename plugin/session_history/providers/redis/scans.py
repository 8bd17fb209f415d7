"""Scans of hashes and of the keys of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis.exceptions import ResponseError

from session_history.providers.redis.client import Client
from session_history.providers.redis.pool import ServerPool
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import Script


async def scan_hash(runner: ScriptRunner, script: Script, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Return the fields of a hash, each with what the script says of it. The server looks them up in portions."""
    fields: dict[bytes, bytes] = {}
    cursor, least = b"0", 0
    while True:
        is_first = cursor == b"0"
        _, found, cursor, total = await runner.run_on_user(script, keys, cursor)
        least = total if is_first else min(least, total)  # the scan may miss fields that began during it
        fields |= zip(found[::2], found[1::2], strict=True)
        # Another server, or one that restarted, reads the cursor differently. Too few fields show it: scan again.
        if cursor == b"0" and len(fields) >= least:
            return fields


async def scan_keys(
    client: Client, server: ServerPool, pattern: bytes, cursor: str, count: int
) -> tuple[Sequence[bytes], str]:
    """Return some names of keys that match a pattern, and the cursor of the next ones; ``"0"`` at the end."""

    async def attempt() -> tuple[Sequence[bytes], str]:
        [answer] = await server.execute([("SCAN", cursor, "MATCH", pattern, "COUNT", count)])
        if isinstance(answer, ResponseError):
            raise answer
        return answer[1], answer[0].decode()

    return await client.retry(attempt)
