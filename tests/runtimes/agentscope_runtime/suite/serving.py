"""An unmodified ``AgentApp``, called through ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from agentscope.message import Msg
from agentscope_runtime.engine import AgentApp

Json = dict[str, Any]
Event = dict[str, Any]


def app_of(handler: Callable[..., Any]) -> AgentApp:
    app = AgentApp(app_name="test")
    app.query(framework="agentscope")(handler)

    @app.post("/stop")
    async def stop(request: dict) -> dict:
        await app.stop_chat(request["user_id"], request["session_id"])
        return {}

    return app


@asynccontextmanager
async def served(handler: Callable[..., Any]) -> AsyncIterator[httpx.AsyncClient]:
    app = app_of(handler)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


def client_of(app: AgentApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")


async def stop(app: AgentApp) -> None:
    async with client_of(app) as client:
        answer = await client.post("/stop", json={"user_id": "ada", "session_id": "first"})
        assert answer.status_code == 200


def body(text: str, *, user: str | None = "ada", session: str | None = "first") -> Json:
    said = {"role": "user", "type": "message", "content": [{"type": "text", "text": text}]}
    ids = {"user_id": user, "session_id": session}
    return {"input": [said], **{name: value for name, value in ids.items() if value is not None}}


async def ask(client: httpx.AsyncClient, text: str, **ids: Any) -> list[Event]:
    answer = await client.post("/process", json=body(text, **ids))
    assert answer.status_code == 200
    return events_of(answer.text)


def events_of(stream: str) -> list[Event]:
    return [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line]


def texts(msgs: list[Msg]) -> list[str]:
    return [f"{msg.name}: {msg.get_text_content()}" for msg in msgs]


class Reader:
    """A client that reads a stream event by event, and may leave."""

    def __init__(self, app: AgentApp, request: Json) -> None:
        self.text = ""
        self._request = json.dumps(request).encode()
        self._received: asyncio.Queue[str] = asyncio.Queue()
        self._left = asyncio.Event()
        self._asked = False
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/process",
            "raw_path": b"/process",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "client": ("client", 1),
            "server": ("app", 80),
        }
        self._call = asyncio.create_task(app(scope, self._receive, self._send))

    async def read_until(self, text: str) -> None:
        while text not in await self._received.get():
            pass

    async def leave(self) -> None:
        self._left.set()
        await self.end()

    async def end(self) -> None:
        await asyncio.wait_for(self._call, 10)

    async def _receive(self) -> Json:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Json) -> None:
        text = message.get("body", b"").decode()
        self.text += text
        await self._received.put(text)
