"""Random calls of a service, each noted in the history before and after."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from histories.history import Pen
from histories.observed import OPERATION, text_of
from session_history import SessionHistoryService
from session_history.errors import (
    InvalidCursor,
    SessionBusy,
    SessionDeleted,
    SessionExists,
    SessionHistoryError,
    SessionNotFound,
    TurnIdReused,
    TurnOvertaken,
)
from session_history.session import Session

REFUSALS = (
    InvalidCursor, SessionBusy, SessionDeleted, SessionExists, SessionNotFound, TurnIdReused, TurnOvertaken,
)  # fmt: skip
"""Errors after which nothing was stored."""

TURN_IDS = 400
"""Ids of a session's turns that processes choose from, so that some are repeated, also at the same time."""

HELD = 0.06
"""The share of exclusive turns that hold their lease for longer than it lives without heartbeats."""

HOLD = 2.0

PADDINGS = (0, 0, 0, 900, 5000)


class HandlerFailed(Exception):
    """The error of a handler."""


def said(role: str, name: str, padding: int = 0) -> dict[str, Any]:
    return {"role": role, "content": f"{name} {'x' * padding}" if padding else name}


def texts_of(messages: list[dict[str, Any]]) -> list[str]:
    return [text_of(message) for message in messages]


class Caller:
    """Calls a service, one call after the other.

    :param name: the beginning of the names of its calls.
    """

    def __init__(
        self, service: SessionHistoryService, pen: Pen, name: str, user: str, sessions: list[str], seed: str
    ) -> None:
        self._service = service
        self._pen = pen
        self._name = name
        self._user = user
        self._sessions = sessions
        self._random = random.Random(seed)
        self._count = 0
        self._actions: list[tuple[int, Callable[[str], Awaitable[object]]]] = [
            (50, self.turn), (12, self.append), (10, self.whole), (8, self.pages), (4, self.list), (4, self.title),
            (6, self.create), (3, self.delete),
        ]  # fmt: skip

    async def call_once(self) -> None:
        weights, actions = zip(*self._actions, strict=True)
        [action] = self._random.choices(actions, weights)
        await action(self._random.choice(self._sessions))
        await asyncio.sleep(self._random.choice((0, 0.005, 0.03)))

    async def turn(self, session: str) -> None:
        """Run a turn: perhaps exclusive, durable, in steps, failing, cancelled, or under the id of another one."""
        draw = self._random.random
        turn_id = f"t{self._random.randrange(TURN_IDS)}" if draw() < 0.5 else None
        options: dict[str, Any] = {
            "turn_id": turn_id,
            "concurrent": self._random.choices(("keep", "queue", "reject"), (55, 25, 20))[0],
            "durable": draw() < 0.25,
            "last_turns": self._random.choice((None, None, 1, 4)),
            "patience": self._random.choice((0.5, 4.0)),
        }
        plan = {
            "steps": self._random.choice((1, 1, 2, 3)),
            "pause": self._random.choice((0, 0, 0, 0.02, 0.1, 0.3)),
            "hold": options["concurrent"] != "keep" and draw() < HELD,
            "end": self._random.choices(("well", "fails", "cancelled"), (88, 7, 5))[0],
            "checkpoint": draw() < 0.3,
        }
        await self._noted("turn", session, lambda op: self._take(op, session, options, plan), {**options, **plan})

    async def _take(self, op: str, session: str, options: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
        question = said("user", f"{options['turn_id'] or op}?")
        facts: dict[str, Any] = {}
        try:
            async with self._service.record_turn(self._user, session, input=question, **options) as recorder:
                turn = recorder.turn
                recorded = turn.recorded
                self._pen.write(
                    "entered", op, history=texts_of(turn.history), recorded=recorded and texts_of(recorded),
                    origin=(recorder.loaded_version or "").partition(" ")[0] or None,
                )  # fmt: skip
                if recorded is None:
                    facts["texts"] = [f"{options['turn_id'] or op}?"]
                    await self._speak(op, recorder, plan, facts["texts"])
                self._pen.write("left", op, **facts)
            if turn.recorded is not None:
                facts["recorded"] = texts_of(turn.recorded)
        except (HandlerFailed, TimeoutError) as error:
            if notes := getattr(error, "__notes__", []):  # the turn could not be stored
                raise Unsaved(notes[0]) from None
        return facts

    async def _speak(self, op: str, recorder: Any, plan: dict[str, Any], texts: list[str]) -> None:
        """Say the answers of a turn one by one, and end it as planned."""
        if plan["hold"]:
            await asyncio.sleep(HOLD)
        for step in range(plan["steps"]):
            padding = self._random.choice(PADDINGS)
            texts.append(f"{op}/{step}")
            recorder.turn.add([said("assistant", texts[-1], padding)])
            await asyncio.sleep(plan["pause"] / plan["steps"])
            if plan["checkpoint"] and step + 1 < plan["steps"]:
                await recorder.checkpoint()
        if plan["end"] != "well":
            self._pen.write("left", op, texts=texts)
            raise HandlerFailed if plan["end"] == "fails" else TimeoutError

    async def append(self, session: str) -> None:
        """Append to a session that was read before, perhaps a while ago."""
        read = await self._noted("read", session, lambda op: self._read(session))
        held = read.pop("object", None)
        if held is None:
            return
        await asyncio.sleep(self._random.choice((0, 0, 0.02, 0.2)))
        await self._noted("append", session, lambda op: self._append(op, held), {"read_at": read.get("at")})

    async def _append(self, op: str, held: Session[Any]) -> dict[str, Any]:
        messages = [said("user", f"{op}?"), said("assistant", f"{op}/0")][: self._random.choice((1, 2))]
        await self._service.append_message(held, messages)
        return {"texts": texts_of(messages)}

    async def whole(self, session: str) -> None:
        (await self._noted("read", session, lambda op: self._read(session))).pop("object", None)

    async def _read(self, session: str, **options: Any) -> dict[str, Any]:
        found = await self._service.get_session(self._user, session, native=True, **options)
        if found is None:
            return {"gone": True}
        return {**seen(found), "texts": texts_of(found.messages), "earlier": found.earlier, "object": found}

    async def pages(self, session: str) -> None:
        """Read a session page by page, the newest turns first."""
        count = self._random.choice((1, 2, 5))
        before = previous = None
        for _ in range(4):
            name = self._next_name()
            work = partial(self._page, session, count, before)
            read = await self._noted("read", session, work, {"last_turns": count, "page_before": previous}, name=name)
            before, previous = read.get("earlier"), name
            if before is None:
                return

    async def _page(self, session: str, count: int, before: str | None, op: str) -> dict[str, Any]:
        return await self._read(session, last_turns=count, before=before)

    async def list(self, session: str) -> None:
        await self._noted("list", "", lambda op: self._list())

    async def _list(self) -> dict[str, Any]:
        listed = await self._service.list_sessions(self._user)
        return {"listed": {each.id: seen(each) for each in listed}}

    async def title(self, session: str) -> None:
        await self._noted("title", session, lambda op: self._title(op, session))

    async def _title(self, op: str, session: str) -> dict[str, Any]:
        return seen(await self._service.update_session(self._user, session, title=op))

    async def create(self, session: str) -> None:
        await self._noted("create", session, lambda op: self._create(op, session))

    async def _create(self, op: str, session: str) -> dict[str, Any]:
        return seen(await self._service.create_session(self._user, session, title=op))

    async def delete(self, session: str) -> None:
        """Delete a session, but seldom the first of them."""
        if session != self._sessions[0] or self._random.random() < 0.1:
            await self._noted("delete", session, lambda op: self._delete(session))

    async def _delete(self, session: str) -> dict[str, Any]:
        await self._service.delete_session(self._user, session)
        return {}

    async def look(self) -> None:
        """Read all sessions once more, after all others."""
        for session in self._sessions:
            await self.whole(session)
        await self.list("")

    def _next_name(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    async def _noted(
        self,
        do: str,
        session: str,
        work: Callable[[str], Awaitable[dict[str, Any]]],
        facts: dict[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> dict[str, Any]:
        """Note a call, do it, note its result, and return that."""
        op = name or self._next_name()
        OPERATION.set(op)
        self._pen.write("call", op, do=do, session=session, **(facts or {}))
        try:
            result = await work(op)
        except REFUSALS as error:
            self._pen.write("return", op, outcome="refused", error=type(error).__name__)
        except (SessionHistoryError, Unsaved) as error:
            self._pen.write("return", op, outcome="unknown", error=f"{type(error).__name__}: {error}"[:200])
        else:
            noted = {name: value for name, value in result.items() if name != "object"}
            self._pen.write("return", op, outcome="ok", **noted)
            return result
        return {}


class Unsaved(Exception):
    """A turn that ended early was not stored."""


def seen(session: Session[Any]) -> dict[str, Any]:
    """Return what a read shows of a session but its messages, and where its log stood."""
    head = session.source.head if session.source else None
    at = [head.tail.generation, head.tail.seq, head.tail_origin] if head else None
    return {"at": at, "title": session.title, "turns": session.turns}
