"""Append where the disk may lose its power at any moment: ``python power.py FOLDER SHADOW SYNCHRONOUS``.

To be run with ``disk.c`` preloaded, which keeps what an fsync made sure of in SHADOW. After each acknowledged append
the shadow is copied to ``SHADOW-<number>``: what a power cut at that moment would leave.
"""

from __future__ import annotations

import asyncio
import shutil
import sys

from session_history import SessionHistoryService
from session_history.providers.sqlite import SqliteProvider

APPENDS = 20


async def main(folder: str, shadow: str, synchronous: str) -> None:
    provider = SqliteProvider(f"{folder}/history.db")
    provider._synchronous = synchronous  # type: ignore[assignment]  # OFF can not be asked for
    async with SessionHistoryService(provider) as service:
        session = await service.create_session("u", "s")
        for number in range(APPENDS):
            # Large enough for two checkpoints on the way, each of which begins the WAL anew.
            await service.append_message(session, {"role": "user", "content": f"{number}", "padding": "x" * 400_000})
            shutil.copytree(shadow, f"{shadow}-{number}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
