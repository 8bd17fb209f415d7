"""Append on a disk that may lose its power at any moment: ``python power.py FOLDER SHADOW SYNCHRONOUS``.

The program needs ``disk.c`` preloaded, which copies a file to SHADOW after each fsync. After each acknowledged append,
the program copies SHADOW to ``SHADOW-<number>``. The copy holds the files that a power cut at that moment would leave.
"""

from __future__ import annotations

import asyncio
import shutil
import sys

from session_history import SessionHistoryService
from session_history.providers import sqlite

APPENDS = 20


async def main(folder: str, shadow: str, synchronous: str) -> None:
    sqlite.SYNCHRONOUS = (*sqlite.SYNCHRONOUS, "OFF")  # No user can choose OFF; it shows that the test can fail.
    provider = sqlite.SqliteProvider(f"{folder}/history.db", synchronous=synchronous)  # type: ignore[arg-type]
    async with SessionHistoryService(provider) as service:
        session = await service.create_session("u", "s")
        for number in range(APPENDS):
            # Large enough for two checkpoints. After each of them, the WAL starts from its beginning.
            await service.append_message(session, {"role": "user", "content": f"{number}", "padding": "x" * 400_000})
            shutil.copytree(shadow, f"{shadow}-{number}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
