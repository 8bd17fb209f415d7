"""Right and wrong uses, for type checkers only. A wrong use that passes is an unused ignore, which is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, assert_type

from session_history import (
    Identity,
    Message,
    PostgresqlSessionHistoryService,
    RedisSessionHistoryService,
    Repair,
    Session,
    SessionHistoryService,
    SqliteSessionHistoryService,
    StoredMessage,
    TokenBudget,
    Turn,
    with_session_history,
)

service: SessionHistoryService = SqliteSessionHistoryService("history.db")


@with_session_history(service)
async def answer(messages: list[Message], turn: Turn, mood: str = "calm") -> str:
    return messages[-1].text


@with_session_history()
async def stream(messages: list[Message]) -> AsyncIterator[str]:
    yield messages[-1].text


@with_session_history(service, native=True)
async def native(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return messages[-1]


def length(message: dict[str, Any]) -> int:
    return len(str(message))


@with_session_history(service, token_budget=TokenBudget(2000, length))
async def thrifty(messages: list[Message]) -> str:
    return messages[-1].text


@with_session_history(service, token_budget=TokenBudget(2000, count=length), native=True)
async def thrifty_natively(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return messages[-1]


class Agent:
    @with_session_history(service)
    async def reply(self, messages: list[Message]) -> Message:
        return messages[-1]

    @classmethod
    @with_session_history(service)
    async def echo(cls, messages: list[Message]) -> str:
        return messages[-1].text


class Request:
    user = "u"


def identify(request: Request) -> Identity:
    return Identity(request.user, "s", "hi")


@with_session_history(service, identify=identify)
async def asked(messages: list[Message]) -> str | None:
    return None


async def right_calls() -> None:
    assert_type(await answer("hi", user_id="u", session_id="s"), str)
    assert_type(await answer("hi", user_id="u", session_id="s", turn_id="t", mood="wild"), str)
    assert_type(await answer([Message(role="user", content="hi"), {"role": "user"}], user_id="u", session_id="s"), str)
    assert_type([piece async for piece in stream("hi", user_id="u", session_id="s")], list[str])
    assert_type(await native({"a": 1}, user_id="u", session_id="s"), dict[str, Any])
    assert_type(await thrifty("hi", user_id="u", session_id="s"), str)
    assert_type(await thrifty_natively("hi", user_id="u", session_id="s"), dict[str, Any])
    assert_type(await Agent().reply("hi", user_id="u", session_id="s"), Message)
    assert_type(await Agent.echo("hi", user_id="u", session_id="s"), str)
    assert_type(asyncio.create_task(answer("hi", user_id="u", session_id="s")), asyncio.Task[str])
    assert_type(await asked(Request()), str | None)


async def wrong_calls() -> None:
    answer("hi", user_id="u", session_id="s")  # type: ignore[unused-coroutine]
    await answer("hi")  # type: ignore[call-arg]
    await answer("hi", user_id="u")  # type: ignore[call-arg]
    await answer(5, user_id="u", session_id="s")  # type: ignore[arg-type]
    await answer("hi", user_id=5, session_id="s")  # type: ignore[arg-type]
    await answer("hi", user_id="u", session_id="s", turn_id=5)  # type: ignore[arg-type]
    await stream("hi", user_id="u", session_id="s")  # type: ignore[misc]
    await Agent().reply("hi", "u", "s")  # type: ignore[call-arg]
    await asked("hi")  # type: ignore[arg-type]


@with_session_history(service)  # type: ignore[arg-type]
async def takes_no_messages(number: int) -> str:
    return str(number)


@with_session_history(service, native=True)  # type: ignore[arg-type]
async def takes_other_messages(messages: list[Message]) -> str:
    return messages[-1].text


@with_session_history(service)  # type: ignore[arg-type]
async def returns_no_answer(messages: list[Message]) -> int:
    return 5


@with_session_history(service)  # type: ignore[type-var]
async def yields_no_messages(messages: list[Message]) -> AsyncIterator[int]:
    yield 5


@with_session_history(service)  # type: ignore[arg-type]
def is_not_async(messages: list[Message]) -> str:
    return messages[-1].text


async def sessions() -> None:
    assert_type(await service.get_session("u", "s"), Session | None)
    assert_type(await service.get_session("u", "s", native=True), Session[dict[str, Any]] | None)
    session = await service.create_session("u")
    assert_type(session.messages, list[Message])
    await service.append_message(session, {"role": "user", "content": "hi"})
    await service.append_message(session, "hi")  # type: ignore[arg-type]
    await service.append_message("s", Message(role="user"))  # type: ignore[arg-type]
    async with service.turn("u", "s") as turn:
        assert_type(turn.history, list[Message])
        assert_type(turn.recorded, list[Message] | None)
        assert_type(turn.repairs, list[Repair])
        turn.add("hi")  # type: ignore[arg-type]
    async with service.turn("u", "s", native=True) as native_turn:
        assert_type(native_turn.history, list[dict[str, Any]])
    budget = TokenBudget(2000, length)
    async with service.turn("u", "s", token_budget=budget, native=True) as thrifty_turn:
        assert_type(thrifty_turn.history, list[dict[str, Any]])
    service.turn("u", "s", token_budget=2000)  # type: ignore[call-overload]
    with_session_history(service, token_budget=2000)  # type: ignore[call-overload]
    await service.get_session("u", "s", token_budget=budget)  # type: ignore[call-overload]
    TokenBudget(2000)  # type: ignore[call-arg]
    TokenBudget("2000", length)  # type: ignore[arg-type]
    TokenBudget(2000, lambda message: message.text)  # type: ignore[attr-defined]
    native_session = await service.create_session("u", native=True, title="t", metadata={"a": 1})
    assert_type(native_session, Session[dict[str, Any]])
    assert_type(await service.create_session("u", "s", native=False), Session)
    await service.create_session("u", title=5)  # type: ignore[call-overload]
    Message(content="hi")  # type: ignore[call-arg]


def presets() -> None:
    PostgresqlSessionHistoryService("postgresql://host/database", schema="history", pool_size=5)
    PostgresqlSessionHistoryService("postgresql://host/database", pool_size="5")  # type: ignore[arg-type]
    PostgresqlSessionHistoryService("postgresql://host/database", pools=5)  # type: ignore[call-arg]
    RedisSessionHistoryService("redis://host", ttl=60, durability="host")
    RedisSessionHistoryService("redis://host", durability="never")  # type: ignore[arg-type]


async def drivers() -> None:
    async with service.record_turn("u", "s", turn_id="t", slot="agent") as recorder:
        recorder.add([StoredMessage.checked("parley.line/1", {"role": "user"})], answer=True)
        recorder.add([{"role": "user"}])  # type: ignore[list-item]
        _: list[dict[str, object]] = recorder.turn.messages
    service.record_turn("u", "s", turn=1)  # type: ignore[call-overload]
