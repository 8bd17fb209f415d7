"""Die in the midst of a durable turn: ``python durable.py KIND PATH``; KIND is ``turn``, ``handler`` or ``stream``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from session_history import SqliteSessionHistoryService, with_session_history


async def main(kind: str, path: str) -> None:
    service = SqliteSessionHistoryService(path)
    options: dict[str, Any] = {"durable": True, "native": True}
    who = {"user_id": "u", "session_id": "s", "turn_id": "t"}

    @with_session_history(service, **options)  # type: ignore[untyped-decorator]
    async def handler(messages: list[Any]) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    @with_session_history(service, **options, concurrent="queue")  # type: ignore[untyped-decorator]
    async def stream(messages: list[Any]) -> AsyncIterator[str]:
        yield "never stored"
        os.kill(os.getpid(), signal.SIGKILL)

    if kind == "handler":
        await handler("question", **who)
    elif kind == "stream":
        async for _ in stream("question", **who):
            pass
    else:
        async with service.turn("u", "s", turn_id="t", input="question", **options):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
