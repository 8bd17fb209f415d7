"""An agent handler that keeps its conversation in SQLite, across processes.

Run it as it is. It talks for three turns. Then a second process continues the same conversation. The agent is a few
lines of Python instead of a model. So it needs no key, and its answers are always the same.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from session_history import Message, SessionHistoryService, with_session_history


@with_session_history()  # SESSION_HISTORY_URL names the store; main() sets it to a new one
async def agent(messages: list[Message]) -> str:
    """Answer from the history and the new message."""
    said = [message.text for message in messages if message.role == "user"]
    names = [text.removeprefix("My name is ").rstrip(".") for text in said if text.startswith("My name is ")]
    if said[-1].startswith("My name is "):
        return f"Nice to meet you, {names[-1]}."
    if said[-1] == "What is my name?":
        return f"Your name is {names[-1]}." if names else "You have not told me."
    return f"This is message {len(messages)} of our conversation."


async def talk(*inputs: str) -> None:
    for text in inputs:
        answer = await agent(text, user_id="ada", session_id="first-steps")
        print(f"  user       {text}\n  assistant  {answer}")


async def show() -> None:
    async with SessionHistoryService.from_config() as service:
        session = await service.get_session("ada", "first-steps")
        assert session is not None
        print(f"The store holds {len(session.messages)} messages in {session.turns} turns.")


def main() -> None:
    if sys.argv[1:] == ["second"]:
        print(f"Process {os.getpid()}, the same conversation:")
        asyncio.run(talk("What is my name?"))
        asyncio.run(show())
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SESSION_HISTORY_URL"] = f"sqlite:///{Path(folder) / 'history.db'}"
        print(f"Process {os.getpid()}:")
        asyncio.run(talk("Hello!", "My name is Ada.", "What is my name?"))
        sys.stdout.flush()  # otherwise these lines would follow those of the other process
        subprocess.run([sys.executable, __file__, "second"], check=True)


if __name__ == "__main__":
    main()
