"""A real AgentScope agent with a tool. It keeps its conversation in SQLite, across processes.

Run it as it is. It talks for three turns, and prints the answers as they come. Then a second process continues the
same conversation. The conversation stays in the file ``agentscope_quickstart.db`` of the current folder.

With a key of OpenAI, Anthropic or DashScope in the environment, the agent uses a real model. Without one, the model
is a few lines of Python below, which see exactly what a real model would see. The program prints which model it uses.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from agentscope.agent import Agent
from agentscope.credential import AnthropicCredential, CredentialBase, DashScopeCredential, OpenAICredential
from agentscope.event import EventBase, TextBlockDeltaEvent, TextBlockEndEvent, TextBlockStartEvent, ToolCallStartEvent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ToolCallBlock, ToolResultBlock, UserMsg
from agentscope.model import AnthropicChatModel, ChatModelBase, ChatResponse, DashScopeChatModel, OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, ToolChunk, Toolkit
from pydantic import SecretStr

from session_history import SessionHistoryService
from session_history.runtimes.agentscope import SessionHistoryMiddleware

FILE = Path("agentscope_quickstart.db").absolute()


async def next_train(city: str) -> ToolChunk:
    """Tell when the next train to a city leaves."""
    return ToolChunk(content=[TextBlock(text=f"The next train to {city} leaves at 09:12.")])


def conductor(service: SessionHistoryService, session_id: str) -> Agent:
    """Return an ordinary agent. Only the middleware gives it a memory."""
    allowed = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="It only looks something up.")
    return Agent(
        name="conductor",
        system_prompt="You help travellers. Answer in one short sentence.",
        model=chosen_model(),
        toolkit=Toolkit([FunctionTool(next_train, permission=allowed)]),
        middlewares=[SessionHistoryMiddleware(service, user_id="ada")],
        state=AgentState(session_id=session_id),
    )


def chosen_model() -> ChatModelBase:
    """Return a real model if there is a key for one, else the script."""
    if key := os.environ.get("OPENAI_API_KEY"):
        name = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
        return OpenAIChatModel(OpenAICredential(api_key=SecretStr(key)), name)
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        name = os.environ.get("ANTHROPIC_MODEL", "claude-haiku-4-5")
        return AnthropicChatModel(AnthropicCredential(api_key=SecretStr(key)), name)
    if key := os.environ.get("DASHSCOPE_API_KEY"):
        return DashScopeChatModel(
            DashScopeCredential(api_key=SecretStr(key)), os.environ.get("DASHSCOPE_MODEL", "qwen-plus")
        )
    return ScriptedModel()


class ScriptedModel(ChatModelBase):
    """A script in place of a model. It knows only the messages that it receives."""

    def __init__(self) -> None:
        super().__init__(CredentialBase(), "scripted", self.Parameters(), stream=True)
        self.formatter = OpenAIChatFormatter()

    async def _call_api(
        self,
        model_name: str,  # noqa: ARG002
        messages: list[Msg],
        *_: Any,
        **__: Any,
    ) -> AsyncGenerator[ChatResponse, None]:
        return self._stream(self._answer(messages))

    async def _stream(self, answer: TextBlock | ToolCallBlock) -> AsyncGenerator[ChatResponse, None]:
        """Yield a text word by word, at the pace of a model."""
        words = answer.text.split(" ") if isinstance(answer, TextBlock) else []
        for index, word in enumerate(words):
            yield ChatResponse(content=[TextBlock(id=answer.id, text=f" {word}" if index else word)], is_last=False)
            await asyncio.sleep(0.05)
        if isinstance(answer, ToolCallBlock):
            yield ChatResponse(content=[answer], is_last=False)

    def _answer(self, messages: list[Msg]) -> TextBlock | ToolCallBlock:
        said = [msg.get_text_content() or "" for msg in messages if msg.role == "user"]
        blocks = [block for msg in messages for block in msg.content]
        calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
        if isinstance(blocks[-1], ToolResultBlock):
            return TextBlock(text="".join(each.text for each in blocks[-1].output if isinstance(each, TextBlock)))
        if "train to" in said[-1]:
            asked = json.dumps({"city": said[-1].split("train to ")[1].rstrip("?.")})
            return ToolCallBlock(id=f"call-{len(calls)}", name="next_train", input=asked)
        names = [text.removeprefix("My name is ").rstrip(".") for text in said if text.startswith("My name is ")]
        if said[-1] == "What is my name, and where do I go?":
            city = json.loads(calls[-1].input)["city"] if calls else "nowhere"
            return TextBlock(text=f"You are {names[-1] if names else 'a stranger'}, and go to {city}.")
        return TextBlock(text=f"Welcome, {names[-1]}." if names else "Hello. What is your name?")


async def talk(session_id: str, *inputs: str) -> None:
    async with SessionHistoryService.from_config() as service:  # SESSION_HISTORY_URL names the store
        agent = conductor(service, session_id)
        for text in inputs:
            print(f"  user       {text}")
            await show_answer(agent.reply_stream(UserMsg("ada", text)))


async def show_answer(events: AsyncIterator[EventBase | Msg]) -> None:
    """Print an answer piece by piece, as it comes."""
    async for event in events:
        match event:
            case ToolCallStartEvent():
                print(f"  tool       {event.tool_call_name}")
            case TextBlockStartEvent():
                print("  assistant  ", end="")
            case TextBlockDeltaEvent():
                print(event.delta, end="", flush=True)
            case TextBlockEndEvent():
                print(flush=True)


async def show_session(session_id: str) -> None:
    async with SessionHistoryService.from_config() as service:
        session = await service.get_session("ada", session_id, native=True)
    assert session is not None
    blocks = [block["type"] for message in session.messages for block in message["content"]]
    print(
        f"The store holds {len(session.messages)} messages in {session.turns} turns, "
        f"with {blocks.count('tool_call')} tool call and {blocks.count('tool_result')} result."
    )


def begin() -> None:
    """Talk for three turns, and let a second process go on."""
    model = chosen_model()
    print(f"The model is {'a script' if isinstance(model, ScriptedModel) else f'{model.model}, a real one'}.")
    print(f"Process {os.getpid()}:")
    session_id = uuid4().hex
    asyncio.run(talk(session_id, "Hello!", "My name is Ada.", "When is the next train to Hangzhou?"))
    subprocess.run([sys.executable, __file__, session_id], check=True)
    print(f"The conversation is in {FILE}")


def go_on(session_id: str) -> None:
    print(f"Process {os.getpid()}, the same conversation:", flush=True)
    asyncio.run(talk(session_id, "What is my name, and where do I go?"))
    asyncio.run(show_session(session_id))


def main() -> None:
    os.environ["SESSION_HISTORY_URL"] = f"sqlite:///{FILE}"
    if sys.argv[1:]:
        go_on(sys.argv[1])
    else:
        begin()


if __name__ == "__main__":
    main()
