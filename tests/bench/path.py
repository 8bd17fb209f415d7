"""The path of a turn through the source: ``python -m bench.path`` prints it, beside those of two peers.

A reader of a turn opens each of its modules and changes between them. The table counts, for one warm
operation, the modules of the package that it enters, the calls into them, and the consecutive calls that change file.
The program ends with 1 if ``service.turn`` is over the limit.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from session_history import InMemorySessionHistoryService, Message, with_session_history

MAX_MODULES = 16
MAX_CHANGES = 80

WARM_UP = 5
"""Operations before the one that is traced."""

OURS = ("session_history", "session_history_hooks")

Operation = Callable[[], Awaitable[object]]


@dataclass
class SourcePath:
    """The calls of one operation, by the file of the code that is called."""

    files: list[str] = field(default_factory=list)

    @property
    def modules(self) -> int:
        return len(set(self.files))

    @property
    def changes(self) -> int:
        return sum(one != other for one, other in pairwise(self.files))


async def trace(operation: Operation, packages: tuple[str, ...]) -> SourcePath:
    """Trace the calls into some packages, in all threads, of an operation that was done a few times before."""
    folders = tuple(folder for package in packages for folder in folders_of(package))
    path = SourcePath()
    recording = False

    def record(frame: FrameType, event: str, _: object) -> None:
        if recording and event == "call" and frame.f_code.co_filename.startswith(folders):
            path.files.append(frame.f_code.co_filename)

    threading.setprofile(record)  # a thread of a pool has the profiler that was set when the thread began
    sys.setprofile(record)
    try:
        for _ in range(WARM_UP):
            await operation()
        recording = True
        await operation()
    finally:
        recording = False
        sys.setprofile(None)
        threading.setprofile(None)
    return path


def folders_of(package: str) -> list[str]:
    spec = find_spec(package)
    return [str(Path(folder)) + "/" for folder in (spec.submodule_search_locations or ())] if spec else []


def turn() -> Operation:
    service = InMemorySessionHistoryService()
    said = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]

    async def operation() -> None:
        async with service.turn("user", "session") as turn:
            list(turn.history)
            turn.add(said)

    return operation


def handler() -> Operation:
    @with_session_history(InMemorySessionHistoryService())
    async def agent(messages: list[Message]) -> str:
        return f"answer {len(messages)}"

    return lambda: agent("question", user_id="user", session_id="session")


def session_middleware() -> Operation:
    from starlette.middleware.sessions import SessionMiddleware

    async def app(scope: Any, _: Any, send: Any) -> None:
        scope["session"]["visits"] = scope["session"].get("visits", 0) + 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = SessionMiddleware(app, secret_key="a secret of the benchmark")
    cookie = b""

    async def send(event: Any) -> None:
        nonlocal cookie
        for name, value in event.get("headers", ()):
            if name.lower() == b"set-cookie":
                cookie = value.split(b";")[0]

    async def operation() -> None:
        headers = [(b"cookie", cookie)] if cookie else []
        await middleware({"type": "http", "path": "/", "headers": headers}, receive, send)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    return operation


def sqlite_session(folder: Path) -> Operation:
    from agents import SQLiteSession

    session = SQLiteSession("session", folder / "session.db")
    said: list[Any] = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]

    async def operation() -> None:
        await session.get_items()
        await session.add_items(said)

    return operation


async def paths(folder: Path) -> dict[str, SourcePath]:
    return {
        "service.turn": await trace(turn(), OURS),
        "a decorated handler": await trace(handler(), OURS),
        "starlette SessionMiddleware": await trace(session_middleware(), ("starlette",)),
        "openai-agents SQLiteSession": await trace(sqlite_session(folder), ("agents",)),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(paths(Path(folder)))
    print(f"{'':30}{'modules':>8}{'calls':>8}{'changes':>9}")
    for name, path in found.items():
        print(f"{name:30}{path.modules:8}{len(path.files):8}{path.changes:9}")
    ours = found["service.turn"]
    if ours.modules > MAX_MODULES or ours.changes > MAX_CHANGES:
        print(f"service.turn is over the limit of {MAX_MODULES} modules and {MAX_CHANGES} changes:")
        print(*sorted(set(ours.files)), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
