"""Turns of several entries, driven as a runtime's skin drives them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from session_history import SessionHistoryService
from session_history.errors import Unavailable
from session_history.log.cache import numbered
from session_history.records.messages import NATIVE, StoredMessage
from session_history.records.record import MessageRef, Record
from session_history.turns.lifecycle import OpenTurn
from session_history.turns.turn import Turn
from session_history_hooks import Appended, SessionKey

KEY = SessionKey("u", "s")

Json = dict[str, Any]


def opened(service: SessionHistoryService, **options: Any) -> OpenTurn[Json]:
    defaults = {"turn_id": None, "size": None, "native": True, "slot": None, "concurrent": "keep"}
    return service._open_turn(KEY, **(defaults | options))


def said(*names: str) -> StoredMessage:
    """A message of a block for each name; a user's, if the first name begins with a ``q``."""
    blocks = [{"type": "text", "id": name, "text": f"says {name}"} for name in names]
    return StoredMessage(NATIVE, {"role": "user" if names[0].startswith("q") else "assistant", "content": blocks})


def names(values: Iterable[Json]) -> list[str]:
    """What :func:`said` made, e.g. ``["q", "a+b"]``."""
    return ["+".join(block["id"] for block in value["content"]) for value in values]


async def recorded(service: SessionHistoryService, **options: Any) -> list[str]:
    session = await service.get_session("u", "s", native=True, **options)
    return names(session.messages) if session else []


async def shown(service: SessionHistoryService, **options: Any) -> list[str]:
    async with service.turn("u", "s", native=True, **options) as turn:
        return names(turn.history)


async def say(service: SessionHistoryService, *texts: str, **options: Any) -> None:
    """A turn of one entry."""
    async with opened(service, **options) as turn:
        turn._take([said(text) for text in texts])


async def append(service: SessionHistoryService, *texts: str) -> None:
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    await service.append_message(session, [said(text).value for text in texts])


def place(turn: Turn[Json], name: str) -> MessageRef:
    """Where the message that begins with this block stands in the history of a turn."""
    return next(at for at, message in turn._placed if names([message.value])[0].split("+")[0] == name)


def abandon(service: SessionHistoryService, *turns: Turn[Json]) -> None:
    """As if the process died: nobody ends these turns."""
    for turn in turns:
        service._turns.discard(turn)
        turn._end_lease()


def fresh(service: SessionHistoryService) -> SessionHistoryService:
    """Another service on the store of this one, which knows nothing of it yet."""
    return SessionHistoryService(service._provider)


async def records(service: SessionHistoryService) -> list[Record]:
    log = await service._provider.read(KEY, last=10**6)
    return [record for _, record in numbered(log)] if log else []


async def end(open_turn: OpenTurn[Json]) -> None:
    await open_turn.__aexit__(None, None, None)


def fail_once(service: SessionHistoryService, *, applied: bool) -> None:
    """The next append fails, and nobody knows whether it was applied."""
    provider = service._provider
    real = provider.append

    async def append(*arguments: Any, **options: Any) -> Appended:
        provider.append = real  # type: ignore[method-assign]
        if applied:
            await real(*arguments, **options)
        raise Unavailable("the network")

    provider.append = append  # type: ignore[method-assign]


def hold(service: SessionHistoryService, after_concurrent: str = "keep") -> tuple[asyncio.Event, asyncio.Event]:
    """Every append waits for the second event, and sets the first; but not the claim of an exclusive turn."""
    provider = service._provider
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
