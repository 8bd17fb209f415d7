"""The manifest of writers, which survives every kill, and the check of a store against it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from session_history import SessionHistoryService
from session_history_hooks import Entry, SessionKey

USER = "tortured"
MESSAGES = "messages"
"""The session whose entries are appended without a service, with keys."""

Log = list[str]
"""The ids of a session's turns, the oldest first."""


class Pen:
    """Writes a manifest. A line survives the process once the call has returned."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def attempt(self, session_id: str, turn_id: str, origin: str = "-") -> None:
        self._write(f"try {session_id} {turn_id} {time.monotonic()} {origin}")

    def acknowledged(self, session_id: str, turn_id: str) -> None:
        self._write(f"ok {session_id} {turn_id} {time.monotonic()}")

    def _write(self, line: str) -> None:
        # A process killed in mid-write leaves half a line. It must not swallow the next line of another process.
        os.write(self._file, f"\n{line}\n".encode())


@dataclass
class Manifest:
    """When turns were attempted, lastly, and which of them were acknowledged when, by session.

    :ivar origins: the origins of the turns whose writers chose them.
    """

    attempted: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    acknowledged: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    origins: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        manifest = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            match line.split():
                case ["try", session_id, turn_id, seconds, origin]:
                    manifest.attempted[session_id][turn_id] = float(seconds)
                    if origin != "-":
                        manifest.origins[turn_id] = origin
                case ["ok", session_id, turn_id, seconds]:
                    manifest.acknowledged[session_id][turn_id] = float(seconds)
        return manifest

    @property
    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    @property
    def writers(self) -> set[str]:
        """The processes of which something was acknowledged; a turn's id is ``process.task/number``."""
        return {turn.partition(".")[0] for turns in self.acknowledged.values() for turn in turns}


async def logs(service: SessionHistoryService, manifest: Manifest) -> dict[str, Log]:
    """Return the turns of a store, read from the provider. A gap, a torn turn or another origin is an error."""
    found = {}
    for session_id in manifest.attempted:
        log = await service.provider.read(SessionKey(USER, session_id), last=10**6)
        entries = log.entries if log else ()
        if log is not None:
            assert log.head.tail.seq == len(entries), f"{session_id} has a gap"
            assert log.head.tail_origin == entries[-1].origin, f"the head of {session_id} names another origin"
            assert len({entry.origin for entry in entries}) == len(entries), f"{session_id} has an origin twice"
        is_messages = session_id == MESSAGES
        found[session_id] = (
            messages(manifest, entries) if is_messages else await turns(service, session_id, len(entries))
        )
    return found


async def turns(service: SessionHistoryService, session_id: str, count: int) -> Log:
    """Return the turns of a session of a service."""
    session = await service.get_session(USER, session_id, native=True)
    assert session is not None
    parts = [session.messages[start : start + 3] for start in range(0, len(session.messages), 3)]
    assert all([part["part"] for part in turn] == [0, 1, 2] for turn in parts), f"{session_id} has a torn turn"
    assert all(len({part["turn"] for part in turn}) == 1 for turn in parts), f"{session_id} has a torn turn"
    assert len(parts) == count
    return [turn[0]["turn"] for turn in parts]


def messages(manifest: Manifest, entries: Sequence[Entry]) -> Log:
    """Return the entries of the session of messages, each of which several writers deliver."""
    keys = [key for entry in entries for key in entry.keys]
    assert len(keys) == len(set(keys)) == len(entries), "a message is stored twice"
    for entry in entries:
        assert manifest.origins.get(entry.id, entry.origin) == entry.origin, f"{entry.id} has another origin"
    return [entry.id for entry in entries]


def flaws(manifest: Manifest, held: dict[str, Log], *, lossy: Sequence[tuple[float, float]] = ()) -> list[str]:
    """Return the flaws of a store: acknowledged ⊆ log ⊆ attempted, each once, in the order of each writer.

    :param lossy: stretches of time, by the monotonic clock, in which no more than an asynchronous replication was
        promised: what was stored then may be lost, which is between its attempt and its acknowledgement.
    """
    found = []
    for session_id, log in held.items():
        lost = {
            turn: when
            for turn, when in manifest.acknowledged[session_id].items()
            if not any(start <= when and manifest.attempted[session_id][turn] <= stop for start, stop in lossy)
        }.keys() - set(log)
        if lost:
            found.append(f"{session_id} has lost {len(lost)} acknowledged turns")
        if len(set(log)) < len(log):
            found.append(f"{session_id} holds {len(log) - len(set(log))} turns twice")
        if foreign := set(log) - manifest.attempted[session_id].keys():
            found.append(f"{session_id} holds {len(foreign)} turns that nobody attempted, {min(foreign)} the first")
        for writer, numbers in by_writer(log).items():
            if numbers != sorted(numbers):
                found.append(f"{session_id} holds the turns of {writer} in another order")
    return found


def by_writer(log: Log) -> dict[str, list[int]]:
    """The numbers of each writer's turns; a turn's id is ``writer/number``."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for turn in log:
        writer, _, number = turn.rpartition("/")
        numbers[writer].append(int(number))
    return numbers
