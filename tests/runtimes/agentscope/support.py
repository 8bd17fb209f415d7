"""Real AgentScope agents on a scripted model, and checks of their messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

from agentscope.agent import Agent, ContextConfig, InjectionConfig, ReActConfig
from agentscope.credential import CredentialBase
from agentscope.event import (
    AgentEvent,
    ConfirmResult,
    ExternalExecutionResultEvent,
    RequireExternalExecutionEvent,
    RequireUserConfirmEvent,
    UserConfirmResultEvent,
)
from agentscope.exception import DeveloperOrientedException
from agentscope.formatter import (
    AnthropicChatFormatter,
    DashScopeChatFormatter,
    GeminiChatFormatter,
    OpenAIChatFormatter,
)
from agentscope.message import (
    Base64Source,
    DataBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    ToolResultState,
    UserMsg,
)
from agentscope.model import ChatModelBase, ChatResponse, ChatUsage
from agentscope.permission import PermissionBehavior, PermissionContext, PermissionDecision
from agentscope.state import AgentState, Task
from agentscope.tool import FunctionTool, ToolBase, ToolGroup, Toolkit

from session_history import SessionHistoryService
from session_history.runtimes.agentscope import SessionHistoryMiddleware
from unit.pairing import flaws_of_blocks, flaws_of_chat

Json = dict[str, Any]
Part = TextBlock | ThinkingBlock | ToolCallBlock | Exception | asyncio.Event
"""The next thing a model does: say a block, raise, or wait."""

Step = Part | Sequence[Part]
"""Everything that a model does in one call."""

USAGE = ChatUsage(input_tokens=7, output_tokens=3, time=0.0)

SOON = 20
"""Seconds within which a reply goes on, so that a test that waits in vain ends."""

ALLOWED = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="A test allows it.")


def text(said: str) -> TextBlock:
    return TextBlock(text=said)


def thought(what: str, signature: str) -> ThinkingBlock:
    return ThinkingBlock.model_validate({"thinking": what, "signature": signature})


def call(tool: str, *, id: str | None = None, **arguments: Any) -> ToolCallBlock:  # noqa: A002 - the field's name
    return ToolCallBlock(id=id or f"call-{tool}-{next(_numbers)}", name=tool, input=json.dumps(arguments))


def for_ever() -> asyncio.Event:
    """An event that nobody sets."""
    return asyncio.Event()


_numbers = iter(range(10**9))


class Invalid(AssertionError):
    """A model's API would not take what it was given."""


class Boom(Exception):
    """The error of a model or a tool in a test."""


class ScriptedModel(ChatModelBase):
    """Does what it is told, and refuses what the APIs of real models refuse.

    Summaries of a compaction are made up without a step of the script.

    :ivar calls: what each call saw, summaries aside.
    :ivar compressed: what it was asked to summarise, each time.
    :ivar waiting: set while it waits for an event of the script.
    :ivar summary_error: raised instead of a summary.
    """

    def __init__(self, script: Iterable[Step], *, stream: bool = True, context_size: int = 10**6) -> None:
        super().__init__(
            CredentialBase(), "scripted", self.Parameters(), stream=stream, max_retries=0, context_size=context_size
        )
        self.formatter = OpenAIChatFormatter()
        self.compressed: list[list[Msg]] = []
        self.summary_error: Exception | None = None
        self.rehearse(script)

    def rehearse(self, script: Iterable[Step]) -> None:
        """Give it another script; what it saw before is forgotten."""
        self._script = iter([list(step) if isinstance(step, Sequence) else [step] for step in script])
        self.calls: list[list[Msg]] = []
        self.waiting = asyncio.Event()

    async def _call_api(self, model_name: str, messages: list[Msg], tools: Any = None, *_: Any, **__: Any) -> Any:
        if tools and tools[0]["function"]["name"] == "generate_structured_output":
            parts = self._summarise(messages, tools[0]["function"]["parameters"])
        else:
            self.calls.append(deepcopy(messages))
            await insist_valid(messages)
            parts = next(self._script, [Invalid("the model is called more often than the script says")])
        return self._streamed(parts) if self.stream else await self._at_once(parts)

    def _summarise(self, messages: list[Msg], schema: Json) -> list[Part]:
        self.compressed.append(deepcopy(messages))
        if self.summary_error is not None:
            return [self.summary_error]
        said = f"summary {len(self.compressed)}"
        return [call("generate_structured_output", **dict.fromkeys(schema["properties"], said))]

    async def _at_once(self, parts: list[Part]) -> ChatResponse:
        blocks: list[Any] = [block for part in parts if (block := await self._done(part)) is not None]
        return ChatResponse(content=deepcopy(blocks), is_last=True, usage=deepcopy(USAGE))

    async def _streamed(self, parts: list[Part]) -> AsyncGenerator[ChatResponse, None]:
        for part in parts:
            block = await self._done(part)
            for delta in pieces(block) if block is not None else ():
                yield ChatResponse(content=[delta], is_last=False)
                await asyncio.sleep(0)
        yield ChatResponse(content=[], is_last=False, usage=deepcopy(USAGE))

    async def _done(self, part: Part) -> TextBlock | ThinkingBlock | ToolCallBlock | None:
        if isinstance(part, Exception):
            raise part
        if not isinstance(part, asyncio.Event):
            return part
        self.waiting.set()
        await part.wait()
        self.waiting.clear()
        return None


def pieces(block: TextBlock | ThinkingBlock | ToolCallBlock) -> list[TextBlock | ThinkingBlock | ToolCallBlock]:
    """A block as a model streams it; the signature comes with the last piece."""
    if isinstance(block, TextBlock):
        return [TextBlock(id=block.id, text=piece) for piece in halves(block.text)]
    if isinstance(block, ToolCallBlock):
        return [ToolCallBlock(id=block.id, name=block.name, input=piece) for piece in halves(block.input)]
    return [
        *(ThinkingBlock(id=block.id, thinking=piece) for piece in halves(block.thinking)),
        ThinkingBlock(id=block.id, thinking="", **(block.model_extra or {})),
    ]


def halves(said: str) -> list[str]:
    middle = len(said) // 2
    return [said[:middle], said[middle:]] if middle else [said]


async def insist_valid(messages: list[Msg]) -> None:
    """:raises Invalid: OpenAI or Anthropic would not take these messages."""
    if found := await flaws(messages):
        raise Invalid("; ".join(found))


async def valid(messages: list[Msg]) -> bool:
    """Return True if OpenAI and Anthropic would take these messages."""
    return not await flaws(messages)


async def flaws(messages: list[Msg]) -> list[str]:
    """Return the flaws for which a model's API would refuse the messages that AgentScope sends."""
    plain = [without_data(message) for message in messages]
    chat = await OpenAIChatFormatter().format(plain)
    blocks = await AnthropicChatFormatter().format(plain)
    qwen = await DashScopeChatFormatter(input_types=["text/plain", "application/x-thinking"]).format(plain)
    gemini = await GeminiChatFormatter().format(plain)
    return [
        *(f"chat {flaw}" for flaw in flaws_of_chat(chat)),
        *(f"qwen {flaw}" for flaw in flaws_of_chat(qwen)),
        *(f"blocks {flaw}" for flaw in flaws_of_blocks(blocks)),
        *(
            f"blocks {index}: called twice"
            for index in range(1, len(blocks))
            if both_call(*blocks[index - 1 : index + 1])
        ),
        *(
            f"{index}: role {message.role}"
            for index, message in enumerate(messages)
            if (message.role == "system") != (not index)
        ),
        *(
            f"chat {index}: role {message['role']}"
            for index, message in enumerate(chat[1:])
            if message["role"] not in ROLES
        ),
        *(f"{api} {flaw}" for api, sent in by_api(chat, blocks, qwen, gemini) for flaw in flaws_of_content(sent)),
    ]


def by_api(*sent: list[Json]) -> list[tuple[str, list[Json]]]:
    return list(zip(("chat", "blocks", "qwen", "gemini"), sent, strict=True))


def flaws_of_content(messages: list[Json]) -> list[str]:
    """Return the messages without text, with a thought that nothing follows, or with arguments that are not JSON."""
    found = []
    for index, message in enumerate(messages):
        parts = message.get("parts", message.get("content")) or []
        parts = [{"text": parts}] if isinstance(parts, str) and message["role"] != "tool" else parts
        parts = [] if isinstance(parts, str) else parts
        found += [f"{index}: blank text" for part in parts if "text" in part and not part["text"].strip()]
        if parts and is_thought(parts[-1]):
            found.append(f"{index}: a thought is last")
        calls = message.get("tool_calls") or []
        if not parts and not calls and message["role"] != "tool":
            found.append(f"{index}: nothing but thoughts")
        found += [f"{index}: arguments" for each in calls if not is_json_object(each["function"]["arguments"])]
    return found


def is_thought(part: Json) -> bool:
    return part.get("type") in ("thinking", "redacted_thinking") or part.get("thought") is True


def is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def without_data(message: Msg) -> Msg:
    """A copy without images and the like: the formatters would load them from where they are."""
    plain = message.model_copy(deep=True)
    plain.content = [TextBlock(text="data") if isinstance(block, DataBlock) else block for block in plain.content]
    for result in plain.get_content_blocks("tool_result"):
        if not isinstance(result.output, str):
            result.output = [TextBlock(text="data") if isinstance(part, DataBlock) else part for part in result.output]
    return plain


ROLES = ("user", "assistant", "tool")


def both_call(one: Json, other: Json) -> bool:
    return all(any(part["type"] == "tool_use" for part in message["content"]) for message in (one, other))


class External(ToolBase):
    """Runs elsewhere."""

    name = "signature"
    description = "Has a person sign."
    is_concurrency_safe = True
    is_read_only = False
    is_external_tool = True

    def __init__(self) -> None:
        super().__init__()
        self.input_schema = {"type": "object", "properties": {}}

    async def check_permissions(self, tool_input: Json, context: PermissionContext) -> PermissionDecision:
        return ALLOWED


def function(tool: Any, **options: Any) -> FunctionTool:
    """AgentScope takes functions that return text, too, and its types do not say so."""
    return FunctionTool(tool, **options)


class Tools:
    """The tools of an agent.

    :ivar ran: which ran, in order.
    :ivar waiting: set while ``endless`` or ``endless_alone`` runs.
    :ivar release: ends them.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.waiting = asyncio.Event()
        self.release = asyncio.Event()

    def toolkit(self) -> Toolkit:
        allowed = [self.weather, self.broken, self.faulty, self.endless, self.article]
        return Toolkit(
            [
                *(function(tool, permission=ALLOWED) for tool in allowed),
                function(self.endless_alone, permission=ALLOWED, is_concurrency_safe=False),
                function(self.plan, permission=ALLOWED, is_state_injected=True, is_concurrency_safe=False),
                function(self.book),
                External(),
            ],
            tool_groups=[ToolGroup("maps", "Finds the way.", tools=[function(self.way, permission=ALLOWED)])],
        )

    async def weather(self, city: str) -> str:
        """The weather in a city."""
        self.ran.append(f"weather {city}")
        return f"sunny in {city}"

    async def broken(self) -> str:
        """Does not work."""
        self.ran.append("broken")
        raise Boom("the tool is broken")

    async def faulty(self) -> str:
        """Ends the whole reply."""
        self.ran.append("faulty")
        raise DeveloperOrientedException("the tool was built badly")

    async def endless(self) -> str:
        """Takes long."""
        self.ran.append("endless")
        self.waiting.set()
        await self.release.wait()
        return "at last"

    async def endless_alone(self) -> str:
        """Takes long, and beside no other."""
        return await self.endless()

    async def article(self, topic: str) -> str:
        """A long article."""
        self.ran.append(f"article {topic}")
        return long(topic)

    async def book(self, city: str) -> str:
        """Books a journey."""
        self.ran.append(f"book {city}")
        return f"booked {city}"

    async def way(self) -> str:
        """The way."""
        return "straight on"

    async def plan(self, subject: str, _agent_state: AgentState) -> str:
        """Adds a task."""
        self.ran.append(f"plan {subject}")
        _agent_state.tasks_context.tasks.append(Task(subject=subject, description="", metadata={}))
        return "planned"


def long(topic: str) -> str:
    """A text of about 500 tokens."""
    return f"{topic}: " + "word " * 400


class Speaker:
    """A real agent with its scripted model and its tools.

    :param options: of the middleware.
    """

    def __init__(
        self,
        service: SessionHistoryService | None,
        *script: Step,
        name: str = "friday",
        user_id: str = "u",
        session_id: str = "s",
        state: AgentState | None = None,
        tools: Tools | None = None,
        toolkit: Toolkit | None = None,
        stream: bool = True,
        context_size: int = 10**6,
        context: ContextConfig | None = None,
        react: ReActConfig | None = None,
        injection: InjectionConfig | None = None,
        middlewares: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        self.service = service
        self.tools = tools or Tools()
        self.model = ScriptedModel(script, stream=stream, context_size=context_size)
        if middlewares is None:
            middlewares = [SessionHistoryMiddleware(service, user_id=user_id, **options)]
        self.agent = Agent(
            name=name,
            system_prompt="You help.",
            model=self.model,
            toolkit=toolkit or self.tools.toolkit(),
            middlewares=list(middlewares),
            state=state or AgentState(session_id=session_id),
            context_config=context,
            react_config=react,
            injection_config=injection,
        )

    async def say(self, said: str) -> Msg:
        """Say something to the agent; return its reply."""
        return await self.agent.reply(UserMsg("user", said))

    @property
    def seen(self) -> list[Msg]:
        """Return the messages that the newest call of the model got."""
        return self.model.calls[-1]

    @property
    def context(self) -> list[Json]:
        return [message.model_dump(mode="json") for message in self.agent.state.context]


class Cast:
    """Agents of one session, one after another: the same object again and again, or each time a fresh one.

    A fresh one has a fresh service, too.

    :param open_service: makes another service for the same store.
    """

    def __init__(self, open_service: Callable[[], SessionHistoryService], *, save: str, lasting: bool) -> None:
        self.service = open_service()
        self.save = save
        self.lasting = lasting
        self.tools = Tools()
        self._open_service = open_service
        self._services = [self.service]
        self._speakers: dict[str, Speaker] = {}

    def speaker(self, *script: Step, name: str = "friday", **options: Any) -> Speaker:
        """The next agent of a name. One that stays keeps the options that it has."""
        if self.lasting and name in self._speakers:
            self._speakers[name].model.rehearse(script)
            return self._speakers[name]
        if not self.lasting:
            self._services.append(self._open_service())
        speaker = Speaker(self._services[-1], *script, name=name, tools=self.tools, save=self.save, **options)
        self._speakers[name] = speaker
        return speaker

    async def logged(self) -> list[Json]:
        return await logged(self.service)

    async def told(self) -> list[str]:
        """Return the texts, calls and results of the log."""
        return told(await self.logged())

    async def close(self) -> None:
        for service in self._services:
            await service.stop()


async def logged(service: SessionHistoryService, user_id: str = "u", session_id: str = "s") -> list[Json]:
    """Return the messages of the log."""
    session = await service.get_session(user_id, session_id, native=True)
    assert session is not None
    return session.messages


def told(messages: Iterable[Msg | Json]) -> list[str]:
    """Return texts, calls and results, without the system's prompt, hints and thoughts."""
    read = [message if isinstance(message, Msg) else Msg.model_validate(message) for message in messages]
    lines = [line(block) for message in read if message.role != "system" for block in message.content]
    return [each for each in lines if each is not None]


def line(block: Any) -> str | None:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, DataBlock):
        return "image"
    if isinstance(block, ToolCallBlock):
        return f"call {block.name}"
    if not isinstance(block, ToolResultBlock):
        return None
    if block.state == ToolResultState.INTERRUPTED:
        return "interrupted"
    output = block.output if isinstance(block.output, str) else "".join(map(str, map(line, block.output)))
    return f"{block.state}: {output}"


def image(name: str) -> DataBlock:
    return DataBlock(name=name, source=Base64Source(data="aW1hZ2U=", media_type="image/png"))


async def ticks() -> None:
    """Time for the loop to close the generators that somebody left, one after another, and for what they store."""
    for _ in range(12):
        await asyncio.sleep(0.002)
        closing = [task for task in asyncio.all_tasks() if type(task.get_coro()).__name__ == "async_generator_athrow"]
        if closing:
            await asyncio.wait(closing, timeout=SOON)


async def leave(speaker: Speaker, said: str, at: Callable[[Any], bool]) -> Any:
    """Leave the stream of a reply at the first event that a condition holds for; that event."""
    async with asyncio.timeout(SOON):
        async for event in speaker.agent.reply_stream(UserMsg("user", said)):
            if at(event):
                return event
    raise AssertionError("the reply ended before that")


async def reach(event: asyncio.Event, task: asyncio.Task[Any]) -> None:
    """Wait until a task has set an event; one that ends before fails."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([waiting, task], timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
        if not event.is_set():
            assert task.done(), "nothing happens"
            await task
            raise AssertionError("the reply ended before that")
    finally:
        waiting.cancel()


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; AgentScope may swallow the cancellation."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        raise error


Parked = RequireUserConfirmEvent | RequireExternalExecutionEvent


async def park(speaker: Speaker, inputs: Any) -> Parked:
    """Have an agent reply until it waits for somebody; what it waits for, as it would come to another process."""
    found: list[AgentEvent | Msg] = [event async for event in speaker.agent.reply_stream(inputs)]
    return asked_for(found)


def asked_for(events: Iterable[AgentEvent | Msg]) -> Parked:
    """Return the first request of an agent for an answer from outside, with all of its calls."""
    asked = [event for event in events if isinstance(event, RequireUserConfirmEvent | RequireExternalExecutionEvent)]
    assert asked, "the agent waits for nobody"
    calls = [tool_call for event in asked if type(event) is type(asked[0]) for tool_call in event.tool_calls]
    whole = asked[0].model_copy(update={"tool_calls": calls})
    return type(whole).model_validate_json(whole.model_dump_json())


def decided(
    parked: Parked, *, confirmed: bool, always: bool = False, only: str | None = None
) -> UserConfirmResultEvent:
    """The user's word on what an agent asked for.

    :param always: the user takes the rules that were suggested, too.
    :param only: the id of the only call to answer.
    """
    calls = [tool_call for tool_call in parked.tool_calls if only in (None, tool_call.id)]
    results = [
        ConfirmResult(
            confirmed=confirmed, tool_call=each.model_copy(deep=True), rules=each.suggested_rules if always else None
        )
        for each in calls
    ]
    return UserConfirmResultEvent(reply_id=parked.reply_id, confirm_results=results)


def executed(parked: Parked, output: str) -> ExternalExecutionResultEvent:
    """The result of what was executed elsewhere."""
    results = [
        ToolResultBlock(id=each.id, name=each.name, output=output, state=ToolResultState.SUCCESS)
        for each in parked.tool_calls
    ]
    return ExternalExecutionResultEvent(reply_id=parked.reply_id, execution_results=results)
