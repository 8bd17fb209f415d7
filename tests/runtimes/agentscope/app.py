"""AgentScope's own service app, driven through its HTTP API: in this process, no network, no socket, a scripted model.

The app makes the model by itself, from a stored credential and a name; a script is found by that name.
"""

from __future__ import annotations

import asyncio
import builtins
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4
from weakref import WeakValueDictionary

from agentscope.app import create_app
from agentscope.app.message_bus import InMemoryMessageBus
from agentscope.app.storage import AsyncSQLAlchemyStorage, ChatModelConfig, SessionConfig, StorageBase
from agentscope.app.workspace_manager import LocalWorkspaceManager
from agentscope.credential import CredentialBase
from agentscope.event import ConfirmResult, UserConfirmResultEvent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock, UserMsg
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, ToolBase, ToolChoice, ToolChunk
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel

Json = dict[str, Any]

RETRY_TIMEOUT = 20.0
"""Seconds within which anything here is over; far more than it takes."""


class Pause(Enum):
    """A piece of an answer after which the model says nothing more until it is cancelled."""

    PAUSE = "pause"


PAUSE = Pause.PAUSE

Piece = str | ThinkingBlock | ToolCallBlock | Exception | Pause
Answer = Piece | tuple[Piece, ...]


class Script:
    """The answers of a model, call by call. The pieces of an answer are streamed, an exception is raised.

    :ivar seen: what every call was shown, the system prompt left out.
    :ivar pausing: set while an answer stands at a ``PAUSE``.
    """

    def __init__(self, *answers: Answer) -> None:
        self.name = uuid4().hex
        self.answers = deque(answers)
        self.seen: list[list[Msg]] = []
        self.pausing = asyncio.Event()
        _scripts[self.name] = self

    async def stream(self, messages: list[Msg]) -> AsyncGenerator[ChatResponse, None]:
        self.seen.append(deepcopy([message for message in messages if message.role != "system"]))
        answer = self.answers.popleft()
        text_id = uuid4().hex
        for piece in answer if isinstance(answer, tuple) else (answer,):
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, Pause):
                self.pausing.set()
                await asyncio.Event().wait()
            else:
                block = TextBlock(id=text_id, text=piece) if isinstance(piece, str) else piece
                yield ChatResponse(content=[block], is_last=False)


_scripts: WeakValueDictionary[str, Script] = WeakValueDictionary()


class ScriptedModel(ChatModelBase):
    type = "scripted_chat"

    def __init__(self, credential: CredentialBase, model: str, parameters: BaseModel | None = None) -> None:
        super().__init__(credential, model, parameters or self.Parameters())
        self.formatter = OpenAIChatFormatter()

    async def _call_api(
        self,
        model_name: str,
        messages: list[Msg],
        tools: list[Json] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatResponse, None]:
        return _scripts[model_name].stream(messages)


class ScriptedCredential(CredentialBase):
    type: Literal["scripted"] = "scripted"

    @classmethod
    def get_chat_model_class(cls) -> builtins.type[ChatModelBase]:
        return ScriptedModel


class ToolBox:
    """Tools that ask for confirmation before they run.

    :ivar asked: the cities whose weather was asked for.
    :ivar waiting: set while a tool runs that never ends.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waiting = asyncio.Event()

    async def tools(self, user_id: str, agent_id: str, session_id: str) -> list[ToolBase]:
        return [FunctionTool(self.weather, name="weather"), FunctionTool(self.wait, name="wait")]

    def weather(self, city: str) -> ToolChunk:
        """The weather in a city."""
        self.asked.append(city)
        return ToolChunk(content=[TextBlock(text=f"Sunny in {city}.")])

    async def wait(self) -> ToolChunk:
        """Wait."""
        self.waiting.set()
        await asyncio.Event().wait()
        raise AssertionError("this event is never set")


def weather_call(call_id: str, city: str) -> ToolCallBlock:
    return ToolCallBlock(id=call_id, name="weather", input=f'{{"city": "{city}"}}')


class MessageRef(NamedTuple):
    """The ids of a session in every app."""

    user_id: str
    agent_id: str
    session_id: str


@dataclass
class Page:
    """The newest messages of a session, and whether a reply goes on: as the app tells it."""

    messages: list[Json]
    running: bool

    def find(self, message_id: str) -> Json | None:
        return next((message for message in self.messages if message["id"] == message_id), None)


class Chat:
    """A session, by the HTTP API of a running app."""

    def __init__(self, client: AsyncClient, storage: StorageBase, place: MessageRef) -> None:
        self._client = client
        self._storage = storage
        self.place = place

    async def say(self, text: str) -> Json:
        """Send a message, and wait until the app has stored the reply to it, whichever way it ended."""
        message_id = await self.send(text)
        return await self.replied(message_id)

    async def send(self, text: str) -> str:
        message = UserMsg(name=self.place.user_id, content=text)
        await self._trigger(message)
        return message.id

    async def replied(self, message_id: str) -> Json:
        page = await self.until(lambda page: page.find(message_id) is not None and not page.running)
        return page.messages[-1]

    async def decide(self, parked: Json, *, confirmed: bool, always: bool = False) -> Json:
        """Confirm or deny the tool calls that a reply waits for, and wait until the app has stored what came of it.

        :param always: calls of this kind are allowed from now on.
        """
        await self.send_decision(parked, confirmed=confirmed, always=always)
        return await self.changed(parked)

    async def send_decision(self, parked: Json, *, confirmed: bool, always: bool = False) -> None:
        calls = [block for block in Msg.model_validate(parked).content if isinstance(block, ToolCallBlock)]
        waiting = [
            ConfirmResult(confirmed=confirmed, tool_call=call, rules=call.suggested_rules if always else None)
            for call in calls
            if call.state == "asking"
        ]
        await self._trigger(UserConfirmResultEvent(reply_id=parked["id"], confirm_results=waiting))

    async def interrupt(self) -> None:
        place = self.place
        await self._request("POST", f"/sessions/{place.session_id}/interrupt", params={"agent_id": place.agent_id})

    async def changed(self, known: Json) -> Json:
        """A message that the app shows, as soon as it is another one than was known."""
        page = await self.until(lambda page: page.find(known["id"]) != known and not page.running)
        changed = page.find(known["id"])
        assert changed is not None
        return changed

    async def set_permissions(self, mode: str) -> None:
        place = self.place
        await self._request(
            "PATCH",
            f"/sessions/{place.session_id}",
            params={"agent_id": place.agent_id},
            json={"permission_mode": mode},
        )

    async def messages(self) -> list[Json]:
        return (await self.page()).messages

    async def state(self) -> AgentState:
        """The agent's state as the app keeps it, messages included; its HTTP API shows no messages of it."""
        record = await self._storage.get_session(*self.place)
        assert record is not None
        return record.state

    async def until(self, wanted: Callable[[Page], bool]) -> Page:
        async with asyncio.timeout(RETRY_TIMEOUT):
            while not wanted(page := await self.page()):  # noqa: ASYNC110 - a page is all that a client gets
                await asyncio.sleep(0.01)
        return page

    async def page(self) -> Page:
        place = self.place
        path = f"/sessions/{place.session_id}/messages"
        page = await self._request("GET", path, params={"agent_id": place.agent_id, "limit": 200})
        return Page(page["messages"], page["is_running"])

    async def _trigger(self, said: BaseModel) -> None:
        place = self.place
        body = {"agent_id": place.agent_id, "session_id": place.session_id, "input": said.model_dump(mode="json")}
        await self._request("POST", "/chat/", json=body)

    async def _request(self, method: str, path: str, **request: Any) -> Json:
        headers = {"X-User-ID": self.place.user_id}
        return answer_of(await self._client.request(method, path, headers=headers, **request))


class ServiceApp:
    """A running app."""

    def __init__(self, client: AsyncClient, storage: StorageBase) -> None:
        self._client = client
        self._storage = storage

    def chat(self, place: MessageRef) -> Chat:
        return Chat(self._client, self._storage, place)

    async def new_chat(self, user_id: str, script: Script, *, agent_name: str = "Friday") -> Chat:
        """A new session of a new agent."""
        agent = await self._create(user_id, "/agent/", name=agent_name)
        return await self.another_chat(MessageRef(user_id, agent["agent_id"], ""), script)

    async def another_chat(self, place: MessageRef, script: Script) -> Chat:
        """A new session of an agent that there is."""
        config = await self._model_of(place.user_id, script)
        session = await self._create(
            place.user_id,
            "/sessions/",
            agent_id=place.agent_id,
            name="named, so that the app asks the model for no name",
            chat_model_config=config.model_dump(mode="json"),
        )
        return self.chat(place._replace(session_id=session["session_id"]))

    async def same_chat(self, place: MessageRef, script: Script, *, agent_name: str = "Friday") -> Chat:
        """A session of the same user and the same id in an app that never heard of it.

        The HTTP API gives out the ids of sessions, so that this one goes to the storage of the app directly.
        """
        agent = await self._create(place.user_id, "/agent/", name=agent_name)
        config = SessionConfig(
            workspace_id="moved", name="moved", chat_model_config=await self._model_of(place.user_id, script)
        )
        await self._storage.upsert_session(place.user_id, agent["agent_id"], config, session_id=place.session_id)
        return self.chat(place._replace(agent_id=agent["agent_id"]))

    async def _model_of(self, user_id: str, script: Script) -> ChatModelConfig:
        credential = await self._create(user_id, "/credential/", data={"type": "scripted"})
        return ChatModelConfig(
            type="scripted", credential_id=credential["credential_id"], model=script.name, parameters={}
        )

    async def _create(self, user_id: str, path: str, **body: Any) -> Json:
        return answer_of(await self._client.post(path, json=body, headers={"X-User-ID": user_id}))


@asynccontextmanager
async def running_app(
    folder: Path, *, middlewares: Any = None, tools: Callable[[str, str, str], Any] | None = None
) -> AsyncIterator[ServiceApp]:
    """An app that keeps its own state in a folder, started as a server would start it."""
    folder.mkdir(exist_ok=True)
    app = create_app(
        AsyncSQLAlchemyStorage(f"sqlite+aiosqlite:///{folder / 'app.db'}"),
        InMemoryMessageBus(),
        LocalWorkspaceManager(str(folder / "workspaces")),
        extra_credentials=[ScriptedCredential],
        extra_agent_middlewares=middlewares,
        extra_agent_tools=tools,
    )
    transport = ASGITransport(app)
    async with app.router.lifespan_context(app), AsyncClient(transport=transport, base_url="http://app") as client:
        yield ServiceApp(client, app.state.storage)


def answer_of(response: Any) -> Json:
    response.raise_for_status()
    answer: Json = response.json()
    return answer


def lines(messages: list[Msg] | list[Json]) -> list[str]:
    """Return speaker and text, one line for each block, without the runtime's hints, which hold the time."""
    return [
        f"{message.name}: {line}"
        for message in map(Msg.model_validate, messages)
        for line in map(line_of, message.content)
        if line is not None
    ]


def line_of(block: Any) -> str | None:
    match block:
        case TextBlock():
            return block.text
        case ThinkingBlock():
            return f"({block.thinking})"
        case ToolCallBlock():
            return f"{block.name}{block.input} {block.id} {block.state}"
        case ToolResultBlock():
            return f"{block.id} {block.state}: {output_of(block)}"
        case _:
            return None


def output_of(block: ToolResultBlock) -> str:
    if isinstance(block.output, str):
        return block.output
    return "".join(piece.text for piece in block.output if isinstance(piece, TextBlock))
