"""Write all conversations of a corpus to SQLite: ``python -m programs.conversations CORPUS DATABASE``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from service.conversations import read_conversations, write
from session_history import SqliteSessionHistoryService


async def main(corpus: Path, database: Path) -> None:
    async with SqliteSessionHistoryService(database) as service:
        await write(service, read_conversations(corpus))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
