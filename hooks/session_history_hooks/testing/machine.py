"""A Hypothesis state machine: random histories on a provider, compared with a model in a dict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Log,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    select_seqs,
)
from session_history_hooks.testing.subject import Connect

T = TypeVar("T")

# Few values, so that calls meet in one session, and look-alikes that a store may confuse.
USERS = ("a", "a:b", "A")
SESSIONS = ("b:c", "c", "C")
IDS = ("e1", "E1", "é", "e\u0301")


_keys = st.builds(SessionKey, st.sampled_from(USERS), st.sampled_from(SESSIONS))
_sides = st.integers(0, 1)
_offsets = st.sampled_from([0, 0, 0, 0, 0, -1, 1, 3])
_marks = st.none() | st.integers(0, 6)


@dataclass
class ModelSession:
    """A session in the model."""

    generation: int = 0
    deleted: bool = False
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None
    rewrite_id: str = ""

    @property
    def tail(self) -> Position:
        return Position(self.generation, len(self.entries))

    def seq_of(self, entry_id: str) -> int | None:
        return next((seq for seq, entry in enumerate(self.entries, start=1) if entry.id == entry_id), None)


class ProviderMachine(RuleBasedStateMachine):
    """Drives one store over two connections and compares every answer with the model's.

    Made by :func:`provider_machine`.
    """

    new_store: Callable[[], Connect]

    def __init__(self) -> None:
        super().__init__()
        self.runner: asyncio.Runner = asyncio.Runner()
        self.sessions: dict[SessionKey, ModelSession] = {}
        self.id_count: int = 0

    @initialize()
    def open(self) -> None:
        # The machine keeps `connect`: new_store may remove the store when `connect` is collected.
        self.connect: Connect = type(self).new_store()
        self.providers: list[SessionHistoryProvider] = [self.connect(), self.connect()]
        for provider in self.providers:
            self.run(provider.start())

    def teardown(self) -> None:
        for provider in getattr(self, "providers", ()):
            self.run(provider.stop())
        self.runner.close()

    @rule(
        key=_keys,
        side=_sides,
        entry_id=st.none() | st.sampled_from(IDS),
        payload=st.binary(max_size=8),
        offset=_offsets,
        generation_offset=st.sampled_from([0, 0, 0, -1, 1]),
        covered=st.booleans(),
    )
    def append(
        self,
        key: SessionKey,
        side: int,
        entry_id: str | None,
        payload: bytes,
        offset: int,
        generation_offset: int,
        covered: bool,
    ) -> None:
        entry = Entry(entry_id or self.new_id(), payload)
        at = self.position(key, offset, generation_offset)
        if self.forgotten(key, entry.id):
            return  # A provider may find such an id, or not.
        snapshot = Snapshot(at.seq + 1, entry.origin, payload * 2) if covered else None
        expected = self.model_append(key, entry, at, snapshot)
        try:
            outcome: object = self.run(self.providers[side].append(key, entry, at=at, snapshot=snapshot))
        except Conflict as conflict:
            outcome = "conflict"
            self.check_head(conflict.head, key)
        assert outcome == expected

    @rule(key=_keys, side=_sides, payload=st.binary(max_size=8), covered=st.booleans())
    def append_next(self, key: SessionKey, side: int, payload: bytes, covered: bool) -> None:
        """Append a new entry at the tail, as nearly all appends do."""
        entry, at = Entry(self.new_id(), payload), self.position(key, 0, 0)
        snapshot = Snapshot(at.seq + 1, entry.origin, payload * 2) if covered else None
        assert self.run(self.providers[side].append(key, entry, at=at, snapshot=snapshot)) == self.model_append(
            key, entry, at, snapshot
        )

    @rule(key=_keys, side=_sides, last=_marks, before=_marks, after=_marks, entry_id=st.none() | st.sampled_from(IDS))
    def read(
        self, key: SessionKey, side: int, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> None:
        provider = self.providers[side]
        log = self.run(provider.read(key, last=last, before=before, after=after, entry_id=entry_id))
        self.check_head(log.head if log else None, key)
        if log is not None:
            page = provider.limits.page
            session = self.sessions[key]
            self.check_entries(
                log, session, select_seqs(len(session.entries), page, last=last, before=before, after=after)
            )
            if entry_id is None or not self.forgotten(key, entry_id):
                self.check_match(log, session, entry_id)

    @rule(key=_keys, side=_sides)
    def delete(self, key: SessionKey, side: int) -> None:
        assert self.run(self.providers[side].delete(key)) is self.model_delete(key)

    @rule(user=st.sampled_from(USERS), side=_sides)
    def delete_user(self, user: str, side: int) -> None:
        expected = sum(self.model_delete(key) for key in list(self.sessions) if key.user_id == user)
        assert self.run(self.providers[side].delete_user(user)) == expected

    @rule(key=_keys, side=_sides, offset=_offsets)
    def renew(self, key: SessionKey, side: int, offset: int) -> None:
        at = self.position(key, offset, 0)
        session = self.sessions.get(key)
        alive = session is not None and not session.deleted
        assert self.run(self.providers[side].renew(key, at=at)) is (
            alive and session is not None and session.tail == at
        )

    @rule(key=_keys, side=_sides, seq=st.integers(0, 4), fresh=st.booleans(), payload=st.binary(max_size=8))
    def rewrite(self, key: SessionKey, side: int, seq: int, fresh: bool, payload: bytes) -> None:
        session = self.sessions.get(key, ModelSession(deleted=True))
        exists = 0 < seq <= len(session.entries)
        entry = replace(session.entries[seq - 1], payload=payload) if exists else Entry("none", payload)
        last, rewrite_id = session.rewrite_id if fresh else "other", self.new_id()
        possible = exists and fresh
        try:
            head = self.run(
                self.providers[side].rewrite(
                    key,
                    entry,
                    at=Position(session.generation, seq),
                    rewrite_id=rewrite_id,
                    last_rewrite_id=last,
                    snapshot=None,
                )
            )
        except Conflict:
            assert not possible
        else:
            assert possible
            session.entries[seq - 1], session.rewrite_id, session.snapshot = entry, rewrite_id, None
            self.check_head(head, key)

    @rule(user=st.sampled_from(USERS), side=_sides, limit=st.integers(1, 4))
    def list_all(self, user: str, side: int, limit: int) -> None:
        alive = [key for key, session in self.sessions.items() if key.user_id == user and not session.deleted]
        listed: list[Head] = []
        cursor = None
        while True:
            page = self.run(self.providers[side].list(user, limit=limit, cursor=cursor))
            listed += page.heads
            cursor = page.cursor
            if cursor is None or len(listed) > len(alive):
                break
        # The clocks of two connections may tie or differ a little, so the order is compared with the returned times.
        assert {head.key for head in listed} == set(alive)
        assert len(listed) == len(alive)
        assert [head.active_us for head in listed] == sorted((head.active_us for head in listed), reverse=True)
        for head in listed:
            self.check_head(head, head.key)

    def model_append(self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None) -> object:
        session = self.sessions.get(key)
        if session is None or session.deleted:
            if at != Position(session.generation + 1 if session else 0, 0):
                return "conflict"
            session = self.sessions[key] = ModelSession(generation=at.generation)
        elif at.generation != session.generation:
            return "conflict"
        elif seq := session.seq_of(entry.id):
            return Appended(Position(session.generation, seq), replayed=True)
        elif at != session.tail:
            return "conflict"
        session.entries.append(entry)
        session.snapshot = snapshot or session.snapshot
        return Appended(session.tail, replayed=False)

    def model_delete(self, key: SessionKey) -> bool:
        session = self.sessions.get(key)
        if session is None or session.deleted:
            return False
        self.sessions[key] = ModelSession(generation=session.generation, deleted=True)
        return True

    def position(self, key: SessionKey, offset: int, generation_offset: int) -> Position:
        """Return the position of the next append, moved by these offsets."""
        known = self.sessions.get(key)
        if known is None:
            return Position(max(0, generation_offset), max(0, offset))
        generation = known.generation + (1 if known.deleted else 0) + generation_offset
        return Position(max(0, generation), max(0, len(known.entries) + offset))

    def check_head(self, head: Head | None, key: SessionKey) -> None:
        session = self.sessions.get(key)
        assert (head is None) == (session is None)
        if head is not None and session is not None:
            assert (head.key, head.tail, head.deleted) == (key, session.tail, session.deleted)
            assert (head.rewrite_id, head.snapshot) == (session.rewrite_id, session.snapshot)
            assert head.tail_origin == (session.entries[-1].origin if session.entries else "")
            assert 0 < head.active_us <= head.changed_us

    def check_entries(self, log: Log, session: ModelSession, seqs: range) -> None:
        assert log.entries == tuple(session.entries[seq - 1] for seq in seqs)
        assert log.first == (seqs[0] if seqs else len(session.entries) + 1)

    def check_match(self, log: Log, session: ModelSession, entry_id: str | None) -> None:
        seq = session.seq_of(entry_id) if entry_id is not None else None
        assert log.match == ((seq, session.entries[seq - 1]) if seq else None)

    def forgotten(self, key: SessionKey, entry_id: str) -> bool:
        """Return whether this id is older than the ids that the provider claims to remember."""
        session = self.sessions.get(key, ModelSession())
        seq = session.seq_of(entry_id)
        remembered = self.providers[0].limits.remembered_ids
        return seq is not None and remembered is not None and seq <= len(session.entries) - remembered

    def new_id(self) -> str:
        self.id_count += 1
        return f"new{self.id_count}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


def provider_machine(new_store: Callable[[], Connect]) -> type[ProviderMachine]:
    """Return the state machine for a provider. A test runner runs its ``TestCase``.

    :param new_store: makes an empty store, and returns a function that connects to it. Called for every history.
    """
    return type("ProviderMachine", (ProviderMachine,), {"new_store": staticmethod(new_store)})
