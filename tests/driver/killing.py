"""A process that takes a turn and is killed in it: ``python -m driver.killing``, with the plan on its input."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from driver.books import require
from driver.plans import Plan
from session_history import SessionHistoryService, StoredMessage
from session_history.records.messages import NATIVE


async def kill(url: str, plan: Plan) -> int:
    """Have a process take a turn and die; return how many acts it had stored."""
    order = {
        "url": url,
        "user": plan.book.user,
        "session": plan.book.session,
        "input": plan.input,
        "acts": [act.messages for act in plan.acts],
        "cut": plan.cut,
        "way": plan.way,
    }
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "driver.killing"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(json.dumps(order).encode())
    require(process.returncode == -signal.SIGKILL, f"{plan}: the process ended with {process.returncode}")
    return len(said.splitlines())


async def take(order: dict[str, Any]) -> None:
    """Take a turn, say when something is stored, and die."""
    service = SessionHistoryService.from_url(order["url"])
    options = {"input": order["input"], "durable": True}
    async with service.record_turn(order["user"], order["session"], **options) as recorder:
        for index, messages in enumerate([*order["acts"], []]):
            if index == order["cut"]:
                os.kill(os.getpid(), signal.SIGKILL)
            recorder.add([StoredMessage(NATIVE, message) for message in messages])
            await recorder.checkpoint()
            print(index, flush=True)


if __name__ == "__main__":
    asyncio.run(take(json.load(sys.stdin)))
