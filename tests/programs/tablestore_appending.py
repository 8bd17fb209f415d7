"""One of several processes that append to one session: ``python tablestore_appending.py ENDPOINT NAME TURNS``.

It prints ``ready`` and waits for a line on its standard input, so that all processes begin at once. Then it appends
its turns and prints the numbers of the acknowledged ones as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from session_history import SessionHistoryService
from session_history.providers.tablestore import TablestoreProvider, create_client


async def main(endpoint: str, name: str, turns: int) -> None:
    acknowledged = []
    async with SessionHistoryService(TablestoreProvider(create_client(endpoint, "inst", "ak", "sk"))) as service:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(turns):
            async with service.turn("u", "s", last_turns=2, native=True) as turn:
                turn.add([{"by": name, "turn": number, "part": part} for part in range(3)])
            acknowledged.append(number)
    print(json.dumps(acknowledged))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
