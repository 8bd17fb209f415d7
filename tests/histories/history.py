"""The history of processes that use one store: what each called, what came back, and when.

Each process writes its own file, a line ahead of each call and one after it. The lines of a process that was killed
stay, so a call without a result is one of unknown outcome. Times are nanoseconds of the monotonic clock, which all
processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOREVER = 1 << 62
"""The time at which a call returns that never did."""

SILENT = "(silent)"
"""The title of an entry that does not change the title."""

Position = tuple[int, float]
"""Generation and seq. A tombstone stands behind all entries of its generation."""


class Pen:
    """Writes the history of one process. A line survives the process once the call has returned."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, kind: str, op: str, **facts: Any) -> None:
        line = {"kind": kind, "op": op, "time": time.monotonic_ns(), **facts}
        os.write(self._file, f"\n{json.dumps(line)}\n".encode())


@dataclass(frozen=True)
class EntryFacts:
    """An entry of a log, as its author wrote it.

    :ivar op: the call that wrote it; ``""`` if no call is known that did.
    :ivar first: seq of the first entry of the turn that this one continues.
    :ivar answered: a repeat of the turn gets its answer.
    :ivar lease: it holds the session's lease.
    """

    origin: str
    author: str = "turn"
    texts: tuple[str, ...] = ()
    turn_id: str | None = None
    first: int | None = None
    status: str | None = "completed"
    answered: bool = True
    title: str | None = SILENT
    lease: bool = False
    op: str = ""

    @classmethod
    def of(cls, facts: dict[str, Any], op: str = "") -> EntryFacts:
        return cls(**{**facts, "texts": tuple(facts["texts"]), "op": op})

    @property
    def content(self) -> tuple[Any, ...]:
        """Return all but the call."""
        return (
            self.origin, self.author, self.texts, self.turn_id, self.first, self.status, self.answered, self.title,
            self.lease,
        )  # fmt: skip


@dataclass
class Attempt:
    """One append of an entry to the store.

    :ivar outcome: ``"ok"``, ``"conflict"``, ``"replayed"`` or ``"unknown"``.
    """

    entry: EntryFacts
    at: tuple[int, int]
    invoked: int
    returned: int = FOREVER
    outcome: str = "unknown"


@dataclass
class Operation:
    """A call of the service.

    :ivar outcome: ``"ok"``; ``"refused"``: nothing was done; ``"unknown"``.
    :ivar entered: when the body of the turn began.
    :ivar left: when the body of the turn ended.
    :ivar facts: the arguments and the result.
    """

    name: str
    do: str
    session: str
    invoked: int
    returned: int = FOREVER
    outcome: str = "unknown"
    error: str = ""
    entered: int = FOREVER
    left: int = FOREVER
    facts: dict[str, Any] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    heartbeats: list[tuple[int, int]] = field(default_factory=list)

    def __str__(self) -> str:
        shown = {name: value for name, value in self.facts.items() if name not in {"do", "session"}}
        until = "never returned" if self.returned == FOREVER else f"{self.returned / 1e9:.4f}"
        at = [(attempt.at, attempt.outcome) for attempt in self.attempts]
        said = f"{self.invoked / 1e9:.4f} to {until}: {self.name} {self.do} {self.session} {self.outcome} {self.error}"
        return f"{said} {shown} appends {at}"[:1500]

    @property
    def is_exclusive(self) -> bool:
        return bool(self.facts.get("concurrent", "keep") != "keep")

    @property
    def recorded(self) -> list[str] | None:
        """Return the answer that was recorded before, if the turn got one."""
        recorded: list[str] | None = self.facts.get("recorded")
        return recorded


@dataclass
class StoredLog:
    """A log as it is in a store, read below the service.

    :ivar generation: -1 for a session never seen.
    """

    generation: int = -1
    deleted: bool = False
    entries: tuple[EntryFacts, ...] = ()

    @property
    def position(self) -> Position:
        if self.generation < 0:
            return (-1, 0)
        return (self.generation, float("inf") if self.deleted else len(self.entries))


@dataclass
class Dump:
    """All logs of a store as they were at some moment between two times, by session."""

    invoked: int
    returned: int
    logs: dict[str, StoredLog]


@dataclass
class History:
    """All calls on one store between two dumps of it.

    :ivar base: the logs at the beginning.
    :ivar final: the logs at the end.
    :ivar backups: the logs as a restored backup showed them.
    """

    operations: dict[str, Operation] = field(default_factory=dict)
    base: Dump = field(default_factory=lambda: Dump(0, 0, {}))
    final: Dump = field(default_factory=lambda: Dump(FOREVER, FOREVER, {}))
    backups: list[Dump] = field(default_factory=list)

    def sessions(self) -> list[str]:
        named = {operation.session for operation in self.operations.values()}
        return sorted((named | set(self.base.logs) | set(self.final.logs)) - {""})

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Add the lines of one process."""
        attempts: dict[tuple[str, int], Attempt] = {}
        for line in lines:
            kind, op, now = line.pop("kind"), line.pop("op"), line.pop("time")
            if kind == "call":
                self.operations[op] = Operation(op, line["do"], line.get("session", ""), now, facts=line)
                continue
            operation = self.operations[op]
            match kind:
                case "entered":
                    operation.entered = now
                    operation.facts |= line
                case "left":
                    operation.left = now
                    operation.facts |= line
                case "return":
                    operation.returned = now
                    operation.outcome, operation.error = line.pop("outcome"), line.pop("error", "")
                    operation.facts |= line
                case "append":
                    entry = EntryFacts.of(line["entry"], op)
                    attempt = Attempt(entry, tuple(line["at"]), now)
                    attempts[op, line["number"]] = attempt
                    operation.attempts.append(attempt)
                case "appended":
                    attempt = attempts[op, line["number"]]
                    attempt.returned, attempt.outcome = now, line["outcome"]
                case "renewed":
                    operation.heartbeats.append((line["since"], now))


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a file; the process may have been killed in the middle of one."""
    lines = []
    for text in path.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(text)) if text else None
    return lines
