"""Turns of several entries, driven as the adapter of a runtime drives them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from session_history import SessionHistoryService, StoredMessage, TurnRecorder
from session_history.errors import Unavailable
from session_history.log.cache import numbered
from session_history.records.messages import NATIVE
from session_history.records.record import MessageRef, Record
from session_history_hooks import (
    Appended,
    Head,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    new_origin,
)

KEY = SessionKey("u", "s")

Json = dict[str, Any]
Recorder = TurnRecorder[Json]
Context = AbstractAsyncContextManager[Recorder]


def opened(service: SessionHistoryService, **options: Any) -> Context:
    return service.record_turn("u", "s", native=True, **options)


def said(*names: str) -> StoredMessage:
    """Return a message of a block for each name; a user's, if the first name begins with a ``q``."""
    blocks = [{"type": "text", "id": name, "text": f"says {name}"} for name in names]
    return StoredMessage(NATIVE, {"role": "user" if names[0].startswith("q") else "assistant", "content": blocks})


def names(values: Iterable[Json]) -> list[str]:
    """Return the names that :func:`said` made messages of, e.g. ``["q", "a+b"]``."""
    return ["+".join(block["id"] for block in value["content"]) for value in values]


def spoken(recorder: Recorder) -> list[str]:
    """Return the names of the messages that a model gets before a turn."""
    return names(recorder.turn.history)


async def recorded(service: SessionHistoryService, **options: Any) -> list[str]:
    session = await service.get_session("u", "s", native=True, **options)
    return names(session.messages) if session else []


async def shown(service: SessionHistoryService, **options: Any) -> list[str]:
    async with service.turn("u", "s", native=True, **options) as turn:
        return names(turn.history)


async def say(service: SessionHistoryService, *texts: str, **options: Any) -> None:
    """Store a turn of one entry."""
    async with opened(service, **options) as recorder:
        recorder.add([said(text) for text in texts])


async def append(service: SessionHistoryService, *texts: str) -> None:
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    await service.append_message(session, [said(text).value for text in texts])


def place(recorder: Recorder, name: str) -> MessageRef:
    """Return a reference to the message of the history that begins with this block."""
    return next(ref for ref, message in recorder.history if names([message.value])[0].split("+")[0] == name)


def heartbeats() -> list[asyncio.Task[Any]]:
    """Return the tasks that send heartbeats."""
    return [task for task in asyncio.all_tasks() if "Lease._send_heartbeats" in repr(task.get_coro())]


def stop_heartbeats() -> None:
    """Let all exclusive turns look as if their process had died."""
    for task in heartbeats():
        task.cancel()


def fresh(service: SessionHistoryService) -> SessionHistoryService:
    """Return another service on the store of this one, which knows nothing of it yet."""
    return SessionHistoryService(service.provider)


async def records(service: SessionHistoryService) -> list[Record]:
    log = await service.provider.read(KEY, last=10**6)
    return [record for _, record in numbered(log)] if log else []


async def end(context: Context) -> None:
    await context.__aexit__(None, None, None)


def fail_once(service: SessionHistoryService, *, applied: bool) -> None:
    """Let the next append fail, so that nobody knows whether it was applied."""
    provider = service.provider
    real = provider.append

    async def append(*arguments: Any, **options: Any) -> Appended:
        provider.append = real  # type: ignore[method-assign]
        if applied:
            await real(*arguments, **options)
        raise Unavailable("the network")

    provider.append = append  # type: ignore[method-assign]


def hold(service: SessionHistoryService, after_concurrent: str = "keep") -> tuple[asyncio.Event, asyncio.Event]:
    """Let every append set the first event and wait for the second, but not the claim of an exclusive turn."""
    provider = service.provider
    real = provider.append
    going, go = asyncio.Event(), asyncio.Event()
    free = [after_concurrent != "keep"]

    async def append(*arguments: Any, **options: Any) -> Appended:
        if not (free and free.pop()):
            going.set()
            await go.wait()
        return await real(*arguments, **options)

    provider.append = append  # type: ignore[method-assign]
    return going, go


async def rewrite(
    provider: SessionHistoryProvider, key: SessionKey, seq: int, payload: bytes | None, snapshot: Snapshot | None
) -> Head:
    """Rewrite an entry of a session, in one of at most a page.

    :param payload: ``None`` = the old one.
    """
    log = await provider.read(key)
    assert log is not None
    old = log.entries[seq - 1]
    return await provider.rewrite(
        key,
        old if payload is None else replace(old, payload=payload),
        at=Position(log.head.tail.generation, seq),
        rewrite_id=new_origin(),
        last_rewrite_id=log.head.rewrite_id,
        snapshot=snapshot,
    )
