"""Random histories, checked against a dict: finds what nobody thought of writing a test for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
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

# Few, so that they meet; and such as a store may take for one another.
USERS = ("a", "a:b", "A")
SESSIONS = ("b:c", "c", "C")
IDS = ("e1", "E1", "é", "e\u0301")


_keys = st.builds(SessionKey, st.sampled_from(USERS), st.sampled_from(SESSIONS))
_sides = st.integers(0, 1)
_offsets = st.sampled_from([0, 0, 0, 0, 0, -1, 1, 3])
_marks = st.none() | st.integers(0, 6)


@dataclass
class Life:
    """What the model knows of a session."""

    generation: int = 0
    deleted: bool = False
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None
    rewrites: int = 0

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
        self.lives: dict[SessionKey, Life] = {}
        self.fresh: int = 0

    @initialize()
    def open(self) -> None:
        # Kept for as long as the machine: the store may last as long as somebody can connect to it.
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
        ahead=_offsets,
        life=st.sampled_from([0, 0, 0, -1, 1]),
        covered=st.booleans(),
    )
    def append(
        self, key: SessionKey, side: int, entry_id: str | None, payload: bytes, ahead: int, life: int, covered: bool
    ) -> None:
        entry = Entry(entry_id or self.new_id(), payload)
        at = self.place(key, ahead, life)
        if self.forgotten(key, entry.id):
            return  # whether such an id is found is the provider's affair
        snapshot = Snapshot(at.seq + 1, entry.id, payload * 2) if covered else None
        expected = self.model_append(key, entry, at, snapshot)
        try:
            outcome: object = self.run(self.providers[side].append(key, entry, at=at, snapshot=snapshot))
        except Conflict as conflict:
            outcome = "conflict"
            self.same_head(conflict.head, key)
        assert outcome == expected

    @rule(key=_keys, side=_sides, payload=st.binary(max_size=8), covered=st.booleans())
    def append_next(self, key: SessionKey, side: int, payload: bytes, covered: bool) -> None:
        """What happens nearly always: a new entry behind the tail."""
        entry, at = Entry(self.new_id(), payload), self.place(key, 0, 0)
        snapshot = Snapshot(at.seq + 1, entry.id, payload * 2) if covered else None
        assert self.run(self.providers[side].append(key, entry, at=at, snapshot=snapshot)) == self.model_append(
            key, entry, at, snapshot
        )

    @rule(key=_keys, side=_sides, last=_marks, before=_marks, after=_marks, entry_id=st.none() | st.sampled_from(IDS))
    def read(
        self, key: SessionKey, side: int, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> None:
        provider = self.providers[side]
        log = self.run(provider.read(key, last=last, before=before, after=after, entry_id=entry_id))
        self.same_head(log.head if log else None, key)
        if log is not None:
            page = provider.limits.page
            life = self.lives[key]
            self.same_log(log, life, select_seqs(len(life.entries), page, last=last, before=before, after=after))
            if entry_id is None or not self.forgotten(key, entry_id):
                self.same_found(log, life, entry_id)

    @rule(key=_keys, side=_sides)
    def delete(self, key: SessionKey, side: int) -> None:
        assert self.run(self.providers[side].delete(key)) is self.model_delete(key)

    @rule(user=st.sampled_from(USERS), side=_sides)
    def delete_user(self, user: str, side: int) -> None:
        expected = sum(self.model_delete(key) for key in list(self.lives) if key.user_id == user)
        assert self.run(self.providers[side].delete_user(user)) == expected

    @rule(key=_keys, side=_sides, ahead=_offsets)
    def renew(self, key: SessionKey, side: int, ahead: int) -> None:
        at = self.place(key, ahead, 0)
        life = self.lives.get(key)
        alive = life is not None and not life.deleted
        assert self.run(self.providers[side].renew(key, at=at)) is (alive and life is not None and life.tail == at)

    @rule(key=_keys, side=_sides, seq=st.integers(0, 4), rewrites=st.integers(0, 2), payload=st.binary(max_size=8))
    def rewrite(self, key: SessionKey, side: int, seq: int, rewrites: int, payload: bytes) -> None:
        life = self.lives.get(key, Life(deleted=True))
        entry = Entry(life.entries[seq - 1].id if 0 < seq <= len(life.entries) else "none", payload)
        possible = 0 < seq <= len(life.entries) and rewrites == life.rewrites
        try:
            head = self.run(
                self.providers[side].rewrite(
                    key, entry, at=Position(life.generation, seq), rewrites=rewrites, snapshot=None
                )
            )
        except Conflict:
            assert not possible
        else:
            assert possible
            life.entries[seq - 1], life.rewrites, life.snapshot = entry, rewrites + 1, None
            self.same_head(head, key)

    @rule(user=st.sampled_from(USERS), side=_sides, limit=st.integers(1, 4))
    def walk(self, user: str, side: int, limit: int) -> None:
        alive = [key for key, life in self.lives.items() if key.user_id == user and not life.deleted]
        listed: list[Head] = []
        cursor = None
        while True:
            page = self.run(self.providers[side].list(user, limit=limit, cursor=cursor))
            listed += page.heads
            cursor = page.cursor
            if cursor is None or len(listed) > len(alive):
                break
        # Two connections' clocks may tie or differ by a little, so the order is checked against what they say.
        assert {head.key for head in listed} == set(alive)
        assert len(listed) == len(alive)
        assert [head.active_us for head in listed] == sorted((head.active_us for head in listed), reverse=True)
        for head in listed:
            self.same_head(head, head.key)

    def model_append(self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None) -> object:
        life = self.lives.get(key)
        if life is None or life.deleted:
            if at != Position(life.generation + 1 if life else 0, 0):
                return "conflict"
            life = self.lives[key] = Life(generation=at.generation)
        elif at.generation != life.generation:
            return "conflict"
        elif seq := life.seq_of(entry.id):
            return Appended(Position(life.generation, seq), replayed=True)
        elif at != life.tail:
            return "conflict"
        life.entries.append(entry)
        life.snapshot = snapshot or life.snapshot
        return Appended(life.tail, replayed=False)

    def model_delete(self, key: SessionKey) -> bool:
        life = self.lives.get(key)
        if life is None or life.deleted:
            return False
        self.lives[key] = Life(generation=life.generation, deleted=True)
        return True

    def place(self, key: SessionKey, ahead: int, life: int) -> Position:
        """The place of the next append, or one beside it."""
        known = self.lives.get(key)
        if known is None:
            return Position(max(0, life), max(0, ahead))
        generation = known.generation + (1 if known.deleted else 0) + life
        return Position(max(0, generation), max(0, len(known.entries) + ahead))

    def same_head(self, head: Head | None, key: SessionKey) -> None:
        life = self.lives.get(key)
        assert (head is None) == (life is None)
        if head is not None and life is not None:
            assert (head.key, head.tail, head.deleted) == (key, life.tail, life.deleted)
            assert (head.rewrites, head.snapshot) == (life.rewrites, life.snapshot)
            assert head.tail_id == (life.entries[-1].id if life.entries else "")
            assert head.active_us > 0

    def same_log(self, log: Log, life: Life, seqs: range) -> None:
        assert log.entries == tuple(life.entries[seq - 1] for seq in seqs)
        assert log.first == (seqs[0] if seqs else len(life.entries) + 1)

    def same_found(self, log: Log, life: Life, entry_id: str | None) -> None:
        seq = life.seq_of(entry_id) if entry_id is not None else None
        assert log.match == ((seq, life.entries[seq - 1]) if seq else None)

    def forgotten(self, key: SessionKey, entry_id: str) -> bool:
        life = self.lives.get(key, Life())
        seq = life.seq_of(entry_id)
        remembered = self.providers[0].limits.remembered_ids
        return seq is not None and remembered is not None and seq <= len(life.entries) - remembered

    def new_id(self) -> str:
        self.fresh += 1
        return f"new{self.fresh}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


def provider_machine(new_store: Callable[[], Connect]) -> type[ProviderMachine]:
    """The state machine for a provider; its ``TestCase`` is what a test runner runs.

    :param new_store: makes an empty store, and returns how to connect to it. It is called for every history.
    """
    return type("ProviderMachine", (ProviderMachine,), {"new_store": staticmethod(new_store)})
