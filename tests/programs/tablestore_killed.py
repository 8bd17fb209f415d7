"""A process that is killed while it writes: ``python tablestore_killed.py ENDPOINT WORK``."""

from __future__ import annotations

import asyncio
import sys

from session_history.providers.tablestore import TablestoreProvider, create_client
from session_history_hooks import Position
from session_history_hooks.testing.subject import KEY, covering, entry

LARGE = b"large" * 10**6
"""A payload in three chunks."""


async def main(endpoint: str, work: str) -> None:
    provider = TablestoreProvider(create_client(endpoint, "inst", "ak", "sk"))
    await provider.start()
    if work == "third":
        await provider.append(KEY, entry(3), at=Position(0, 2), snapshot=covering(3))
    elif work == "large":
        await provider.append(KEY, entry(3, LARGE), at=Position(0, 2), snapshot=covering(3))
    else:
        await provider.delete(KEY)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
