"""The app of ``docs/how-to/fastapi.md`` keeps what a client heard, however it leaves, and refuses by status code."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from docs.walkthrough import files
from support import ROOT

PAGE = ROOT / "docs" / "how-to" / "fastapi.md"
CODE = files(PAGE)["app.py"]
JSON = {"Content-Type": "application/json"}
ADA = {"Authorization": "Bearer token-of-ada"}


@pytest.fixture(params=["memory", "sqlite"])
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return what imports an app, on memory and on SQLite."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / 'history.db'}"}

    def loaded(code: str) -> Any:
        monkeypatch.setenv("SESSION_HISTORY_URL", urls[request.param])
        path = tmp_path / "app.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location("app_of_the_page", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "app_of_the_page", module)  # FastAPI resolves annotations there
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.fixture
async def module(load: Callable[[str], Any]) -> AsyncIterator[Any]:
    loaded = load(CODE)
    async with loaded.lifespan(loaded.app):
        yield loaded


def client_of(module: Any, headers: dict[str, str] = ADA) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(module.app), base_url="http://app", headers=headers)


def request_of(text: str) -> tuple[dict[str, Any], bytes]:
    """Return the scope and the body of a question."""
    headers = [(b"authorization", b"Bearer token-of-ada"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/sessions/s1/turns", "raw_path": b"/sessions/s1/turns",
        "query_string": b"", "headers": headers, "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    return scope, b'{"text": "%s", "turn_id": "t1"}' % text.encode()


async def stored(module: Any) -> list[str]:
    session = await module.service.get_session("ada", "s1")
    return [message.text for message in session.messages]


async def test_client_that_leaves_while_the_server_waits_for_it_gets_its_part_stored(module: Any) -> None:
    scope, body = request_of("Hi")
    received = iter([{"type": "http.request", "body": body, "more_body": False}])
    stuck = asyncio.Event()

    async def receive() -> dict[str, Any]:
        for message in received:
            return message
        await stuck.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if b"said" in message.get("body", b""):
            stuck.set()
            await asyncio.Event().wait()

    await module.app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)
    assert await stored(module) == ["Hi", "You said "]


async def test_client_that_leaves_before_the_first_piece_gets_it_stored(module: Any) -> None:
    scope, body = request_of("Hi")
    received = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(received, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        """Drop the message, as servers do once the client has left."""

    await module.app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)
    assert await stored(module) == ["Hi", "You "]


async def test_client_that_leaves_an_app_whose_server_raises_gets_its_part_stored(module: Any) -> None:
    scope, body = request_of("Hi")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if b"said" in message.get("body", b""):
            raise OSError("the client has left")

    with pytest.raises(ClientDisconnect):
        await module.app({**scope, "asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send)
    assert await stored(module) == ["Hi", "You said "]


async def test_retry_with_rerun_answers_in_full_and_the_log_keeps_both_attempts(load: Callable[[str], Any]) -> None:
    module = load(CODE.replace('concurrent="reject"', 'concurrent="reject", on_repeat="rerun"'))
    async with module.lifespan(module.app), client_of(module) as client:
        async with aclosing(module.answer("Hi", user_id="ada", session_id="s1", turn_id="t1")) as left:
            assert await anext(left) == "You "
        for _ in range(2):
            answer = await client.post("/sessions/s1/turns", json={"text": "Hi", "turn_id": "t1"})
            assert "slowly." in answer.text
        assert await stored(module) == ["Hi", "You ", "Hi", "You said Hi and I answer slowly. "]


async def test_refusals_have_a_status_and_name_their_kind(module: Any) -> None:
    question = {"text": "Hi", "turn_id": "t1"}
    async with client_of(module) as client, client_of(module, {}) as stranger:
        assert (await stranger.get("/sessions/s1")).status_code == 401
        assert (await client.get("/sessions/s1")).json() == []
        answers = await asyncio.gather(*(client.post("/sessions/s1/turns", json=question) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        reused = await client.post("/sessions/s1/turns", json={**question, "text": "Other"})
        assert (reused.status_code, reused.json()) == (409, {"error": "TurnIdReused"})
        invalid = await client.post("/sessions/s1/turns", json={**question, "turn_id": " "})
        assert (invalid.status_code, invalid.json()) == (422, {"error": "InvalidKey"})
        content = rb'{"text": "\ud800", "turn_id": "t2"}'
        surrogate = await client.post("/sessions/s1/turns", content=content, headers=JSON)
        assert (surrogate.status_code, surrogate.json()) == (422, {"error": "NotStorable"})
        assert (await client.delete("/sessions/s1")).status_code == 204
        assert (await client.get("/sessions/s1")).status_code == 404
        deleted = await client.post("/sessions/s1/turns", json={**question, "turn_id": "t2"})
        assert (deleted.status_code, deleted.json()) == (404, {"error": "SessionDeleted"})
        await module.service.stop()
        stopped = await client.get("/sessions/s1")
        assert (stopped.status_code, stopped.json()) == (503, {"error": "Unavailable"})


async def test_session_of_another_user_looks_like_one_never_seen(module: Any) -> None:
    async with client_of(module) as ada, client_of(module, {"Authorization": "Bearer token-of-bob"}) as bob:
        await ada.post("/sessions/s1/turns", json={"text": "Hi", "turn_id": "t1"})
        assert (await bob.get("/sessions/s1")).json() == (await bob.get("/sessions/s2")).json() == []
