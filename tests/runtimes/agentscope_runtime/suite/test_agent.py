"""A real ``ReActAgent`` of agentscope 1.x with a scripted model and a tool behind an ``AgentApp``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from agentscope.agent import ReActAgent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg, TextBlock, ToolUseBlock
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.pipeline import stream_printing_messages
from agentscope.tool import Toolkit, ToolResponse

from runtimes.agentscope_runtime.suite.serving import Reader, app_of, ask, body, served, stop
from session_history import SessionHistoryService
from session_history.runtimes.agentscope_runtime import with_session_history
from session_history.view.shapes import UNKNOWN_OUTCOME

Json = dict[str, Any]


class Model(ChatModelBase):
    """Streams what is scripted, and remembers what it was asked."""

    def __init__(self, *answers: list[Any]) -> None:
        super().__init__("scripted", stream=True)
        self.asked: list[list[Json]] = []
        self._answers = iter(answers)

    async def __call__(self, messages: list[Json], **_: Any) -> AsyncIterator[ChatResponse]:
        self.asked.append(messages)
        return self._stream(next(self._answers))

    async def _stream(self, chunks: list[Any]) -> AsyncIterator[ChatResponse]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield ChatResponse(content=[chunk])


def text(said: str) -> TextBlock:
    return TextBlock(type="text", text=said)


def use(city: str) -> ToolUseBlock:
    return ToolUseBlock(type="tool_use", id=f"call {city}", name="weather", input={"city": city})


def remembering(service: SessionHistoryService, model: Model, tool: Callable[..., Any]) -> Callable[..., Any]:
    @with_session_history(service)
    async def query(self: Any, msgs: list[Msg], request: Any = None, **_: Any) -> AsyncIterator[Any]:
        toolkit = Toolkit()
        toolkit.register_tool_function(tool)
        agent = ReActAgent("friday", "Be kind.", model, OpenAIChatFormatter(), toolkit, InMemoryMemory())
        agent.set_console_output_enabled(False)
        try:
            async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
                yield msg, last
        except asyncio.CancelledError:
            await agent.interrupt()
            raise

    return query


async def weather(city: str) -> ToolResponse:
    """The weather in a city."""
    return ToolResponse(content=[text(f"sunny in {city}")])


def outline(messages: list[Json]) -> list[str]:
    """Return the lines of a request to a model: speaker and text, calls and results by their ids."""
    lines = []
    for message in messages:
        content = message["content"]
        said = content if isinstance(content, str) else "".join(part["text"] for part in content or [])
        calls = [call["id"] for call in message.get("tool_calls", [])]
        lines.append(": ".join([message["role"], *calls, *([said] if said else [])]))
    return lines


async def test_the_second_request_shows_the_model_the_tool_calls_of_the_first(service: SessionHistoryService) -> None:
    model = Model([use("Rome")], [text("It is"), text("It is sunny.")], [text("You're welcome.")])
    async with served(remembering(service, model, weather)) as client:
        await ask(client, "Weather in Rome?")
        events = await ask(client, "Thanks")
    assert outline(model.asked[2]) == [
        "system: Be kind.",
        "user: Weather in Rome?",
        "assistant: call Rome",
        "tool: sunny in Rome",
        "assistant: It is sunny.",
        "user: Thanks",
    ]
    assert "You're welcome." in str(events[-1])


async def test_interrupted_tool_gets_a_result(service: SessionHistoryService) -> None:
    started = asyncio.Event()

    async def slow(city: str) -> ToolResponse:
        """The weather in a city, in the end."""
        started.set()
        await asyncio.Event().wait()
        return ToolResponse(content=[])

    call = ToolUseBlock(type="tool_use", id="call Rome", name="slow", input={"city": "Rome"})
    model = Model([call], [text("Sorry.")])
    app = app_of(remembering(service, model, slow))
    async with app.router.lifespan_context(app):
        reader = Reader(app, body("Weather in Rome?"))
        await reader.read_until("call Rome")
        await started.wait()
        await stop(app)
        await reader.end()
        await Reader(app, body("Never mind")).end()
    assert outline(model.asked[1]) == [
        "system: Be kind.",
        "user: Weather in Rome?",
        "assistant: call Rome",
        f"tool: {UNKNOWN_OUTCOME}",
        "user: Never mind",
    ]


async def test_model_error_after_a_tool_keeps_the_result(service: SessionHistoryService) -> None:
    model = Model([use("Rome")], [text("It"), RuntimeError("the model is down")], [text("Sunny.")])
    async with served(remembering(service, model, weather)) as client:
        events = await ask(client, "Weather in Rome?")
        await ask(client, "And?")
    assert "the model is down" in events[-1]["error"]["message"]
    assert outline(model.asked[2])[1:5] == [
        "user: Weather in Rome?",
        "assistant: call Rome",
        "tool: sunny in Rome",
        "assistant: It",
    ]


PROGRAM = """
import asyncio, sys
from runtimes.agentscope_runtime.suite.serving import ask, served
from runtimes.agentscope_runtime.suite.test_agent import Model, outline, text, use, weather, remembering

async def main():
    model = Model([use("Rome")], [text("It is sunny.")]) if sys.argv[1] == "first" else Model([text("Bye.")])
    async with served(remembering(None, model, weather)) as client:
        await ask(client, sys.argv[1])
    print(*outline(model.asked[-1])[1:], sep="\\n")

asyncio.run(main())
"""


def test_a_second_process_goes_on_where_runtime_config_points(tmp_path: Path) -> None:
    def run(said: str) -> list[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SESSION_HISTORY_URL": f"sqlite:///{tmp_path}/history.db",
        }
        command = [sys.executable, "-c", PROGRAM, said]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith(("user:", "assistant:", "tool:"))]

    first = ["user: first", "assistant: call Rome", "tool: sunny in Rome"]
    assert run("first") == first
    assert run("second") == [*first, "assistant: It is sunny.", "user: second"]
