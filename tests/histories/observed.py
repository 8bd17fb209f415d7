"""A provider that notes in the history which entries a process appends, where, and how that ends."""

from __future__ import annotations

import time
from contextvars import ContextVar
from itertools import count
from typing import Any

from histories.history import SILENT, EntryFacts, Pen
from session_history.records.record import Record
from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Position,
    SessionHistoryError,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
)

OPERATION: ContextVar[str] = ContextVar("operation")
"""The call in which an append is made."""


def text_of(value: dict[str, Any]) -> str:
    """Return the short name of a message; the padding behind it is checked, not noted."""
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    name, _, padding = str(content).partition(" ")
    return name if padding == "x" * len(padding) else f"{name} (broken)"


def facts_of(entry: Entry, key: SessionKey, seq: int) -> EntryFacts:
    record = Record.decode(entry.payload, key, seq)
    return EntryFacts(
        entry.origin,
        record.by.value,
        tuple(text_of(message.value) for message in record.messages),
        record.turn_id,
        record.continues.first if record.continues else None,
        record.status.value if record.status else None,
        record.is_answered,
        record.changes.get("title", SILENT),
        record.lease is not None,
    )


class Observed:
    """A provider whose appends and heartbeats are noted; all else is that of the provider beneath."""

    def __init__(self, provider: SessionHistoryProvider, pen: Pen) -> None:
        self._provider = provider
        self._pen = pen
        self._numbers = count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        op, number = OPERATION.get(), next(self._numbers)
        facts = facts_of(entry, key, at.seq + 1)
        written = {**vars(facts), "texts": list(facts.texts)}
        del written["op"]
        self._pen.write("append", op, number=number, at=[at.generation, at.seq + 1], entry=written)
        try:
            appended = await self._provider.append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)
        except Conflict:
            self._pen.write("appended", op, number=number, outcome="conflict")
            raise
        except SessionHistoryError:
            self._pen.write("appended", op, number=number, outcome="unknown")
            raise
        self._pen.write("appended", op, number=number, outcome="replayed" if appended.replayed else "ok")
        return appended

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        since = time.monotonic_ns()
        renewed = await self._provider.renew(key, at=at, tail_origin=tail_origin)
        if renewed:
            self._pen.write("renewed", OPERATION.get(), since=since)
        return renewed
