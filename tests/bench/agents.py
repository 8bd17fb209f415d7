"""A session of 300 turns, each with a call of a tool, of real AgentScope agents: what remembering costs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentscope.agent import Agent, InjectionConfig
from agentscope.credential import CredentialBase
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ToolCallBlock, ToolResultBlock, UserMsg
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, ToolChunk, Toolkit

from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.runtimes.agentscope import SessionHistoryMiddleware
from session_history_hooks import SessionKey

TURNS = 300
PART = 50
"""Turns that a median is taken of."""

ALLOWED = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="It only looks something up.")


class Model(ChatModelBase):
    """Calls a tool, and then says what the tool said. It counts no tokens, which would cost more than all the rest."""

    def __init__(self) -> None:
        super().__init__(CredentialBase(), "scripted", self.Parameters(), stream=False, context_size=10**9)
        self.formatter = OpenAIChatFormatter()

    async def count_tokens(self, *_: Any, **__: Any) -> int:
        return 0

    async def _call_api(self, model_name: str, messages: list[Msg], *_: Any, **__: Any) -> ChatResponse:
        if isinstance(messages[-1].content[-1], ToolResultBlock):
            return ChatResponse(content=[TextBlock(text="It was found. " * 20)], is_last=True)
        call = ToolCallBlock(id=f"call-{len(messages)}", name="look_up", input=json.dumps({"what": "a thing"}))
        return ChatResponse(content=[call], is_last=True)


async def look_up(what: str) -> ToolChunk:
    """Look something up."""
    return ToolChunk(content=[TextBlock(text=f"{what}: " + "found " * 60)])


def agent(session_id: str, service: SessionHistoryService | None = None, **options: Any) -> Agent:
    return Agent(
        "clerk",
        "You look things up.",
        Model(),
        toolkit=Toolkit([FunctionTool(look_up, permission=ALLOWED)]),
        middlewares=[SessionHistoryMiddleware(service, user_id="u", **options)] if service else [],
        state=AgentState(session_id=session_id),
        injection_config=InjectionConfig(inject_runtime_state=False),
    )


async def turn(clerk: Agent) -> float:
    """Milliseconds of a reply."""
    question = UserMsg("user", "Please look the thing up. " * 8)
    began = time.perf_counter()
    await clerk.reply(question)
    return 1000 * (time.perf_counter() - began)


async def payloads(service: SessionHistoryService, session_id: str) -> list[int]:
    """Bytes of the entries of a session."""
    sizes: list[int] = []
    while log := await service.provider.read(SessionKey("u", session_id), after=len(sizes)):
        if not log.entries:
            break
        sizes += [len(entry.payload) for entry in log.entries]
    return sizes


async def said(service: SessionHistoryService, session_id: str) -> int:
    """Bytes of the messages of a session, as JSON."""
    session = await service.get_session("u", session_id, native=True)
    assert session is not None
    return sum(len(json.dumps(message, separators=(",", ":"))) for message in session.messages)


async def report(folder: Path, row: Callable[[object, list[str]], None]) -> None:
    async with SqliteSessionHistoryService(folder / "agents.db") as service:
        plain, lasting, by_step = agent("none"), agent("lasting", service), agent("by-step", service, save="step")
        ways: dict[str, Callable[[], Agent]] = {
            "no history": lambda: plain,
            "one agent": lambda: lasting,
            'one agent, "step"': lambda: by_step,
            "new agents, 20 turns": lambda: agent("new", service, last_turns=20),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, clerk in ways.items():
                taken[name].append(await turn(clerk()))
        row("turns", [f"{name} ms" for name in ways])
        for first in range(0, TURNS, 125):
            cells = [statistics.median(times[first : first + PART]) for times in taken.values()]
            row(f"{first + 1}-{first + PART}", [f"{cell:.2f}" for cell in cells])
        print(
            "\nBytes that were written, per byte of the messages' JSON; and per turn, at the beginning and at the end"
        )
        for session_id in ("lasting", "by-step", "new"):
            sizes = await payloads(service, session_id)
            each = len(sizes) // TURNS
            ends = [sum(sizes[: PART * each]) / PART, sum(sizes[-PART * each :]) / PART]
            share = sum(sizes) / await said(service, session_id)
            row(session_id, [f"{share:.2f}", f"{each} entries a turn", *(f"{size:,.0f} bytes" for size in ends)])
