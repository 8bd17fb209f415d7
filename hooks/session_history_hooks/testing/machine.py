"""A Hypothesis state machine: random histories on a provider, compared with a model in a dict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from session_history_hooks import (
    Conflict,
    Entry,
    Head,
    Position,
    Restorable,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    StoreInfo,
    Users,
    ability,
    select_seqs,
)
from session_history_hooks.testing.model import Model, ModelSession, Refused, changed
from session_history_hooks.testing.restorable_logs import upto
from session_history_hooks.testing.subject import Connect
from session_history_hooks.testing.users import walk_tombstones, walk_users

T = TypeVar("T")

# Few values, so that calls meet in one session, and look-alikes that a store may confuse.
USERS = ("a", "a:b", "A")
SESSIONS = ("b:c", "c", "C")
IDS = ("e1", "E1", "é", "e\u0301")
NAMES = (*IDS, "k", "K")
"""Names that entries have as ids or keys."""


_keys = st.just(SessionKey(USERS[0], SESSIONS[0])) | st.builds(
    SessionKey, st.sampled_from(USERS), st.sampled_from(SESSIONS)
)
_known = st.integers(0, len(USERS) * len(SESSIONS) - 1)
"""The number of a session that exists, see ``ProviderMachine.known``."""
_sides = st.integers(0, 1)
_offsets = st.sampled_from([*[0] * 8, -1, 1, 3])
_marks = st.none() | st.integers(0, 6)
_names = st.none() | st.sampled_from(NAMES)
_expected = st.sampled_from([None, True, True, True, False])
"""Whether a call names an origin of the tail, and the right one."""
_entries = st.builds(
    Entry,
    id=st.none() | st.sampled_from(IDS),  # `None` becomes a new id
    payload=st.binary(max_size=8),
    keys=st.just(()) | st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple),
    text=st.none() | st.just("two words"),
    bookkeeping=st.booleans(),
)


class ProviderMachine(RuleBasedStateMachine):
    """Drives one store over two connections and compares every answer with the model's.

    Made by :func:`provider_machine`.
    """

    new_store: Callable[[], Connect]
    incarnations: ClassVar[set[str]] = set()
    """Those of all stores of all machines."""

    def __init__(self) -> None:
        super().__init__()
        self.runner: asyncio.Runner = asyncio.Runner()
        self.id_count: int = 0
        self.last_rewrites: dict[SessionKey, tuple[Entry, Position, str, str]] = {}

    @initialize()
    def open(self) -> None:
        # The machine keeps `connect`: new_store may remove the store when `connect` is collected.
        self.connect: Connect = type(self).new_store()
        self.providers: list[SessionHistoryProvider] = [self.connect(), self.connect()]
        for provider in self.providers:
            self.run(provider.start())
        self.model: Model = Model(self.providers[0].limits.remembered_ids)
        self.info: StoreInfo = self.run(self.providers[0].store_info())
        assert self.info.incarnation not in self.incarnations, "each store must have an incarnation of its own"
        self.incarnations.add(self.info.incarnation)

    def teardown(self) -> None:
        for provider in getattr(self, "providers", ()):
            self.run(provider.stop())
        self.runner.close()

    @rule(
        key=_keys,
        side=_sides,
        entry=_entries,
        offset=_offsets,
        generation_offset=st.sampled_from([*[0] * 8, -1, 1]),
        expected_origin=_expected,
        covered=st.booleans(),
    )
    def append(
        self,
        key: SessionKey,
        side: int,
        entry: Entry,
        offset: int,
        generation_offset: int,
        expected_origin: bool | None,
        covered: bool,
    ) -> None:
        entry_id = entry.id or self.new_id()
        entry = replace(entry, id=entry_id, keys=tuple(each for each in entry.keys if each != entry_id))
        if not self.model.forgotten(key, entry.id, *entry.keys):  # Such an id is found, or not.
            at = self.model.position(key, offset, generation_offset)
            self.append_both(key, side, entry, at, self.origin(key, expected_origin), covered)

    @rule(
        key=_keys, side=_sides, payloads=st.lists(st.binary(max_size=8), min_size=1, max_size=4), covered=st.booleans()
    )
    def append_next(self, key: SessionKey, side: int, payloads: list[bytes], covered: bool) -> None:
        """Append new entries at the tail, as nearly all appends do."""
        for payload in payloads:
            at, tail_origin = self.model.position(key, 0, 0), self.origin(key, expected=True)
            self.append_both(key, side, Entry(self.new_id(), payload), at, tail_origin, covered)

    def append_both(
        self, key: SessionKey, side: int, entry: Entry, at: Position, tail_origin: str | None, covered: bool
    ) -> None:
        """Append to the model and to the provider, and compare."""
        snapshot = Snapshot(at.seq + 1, entry.origin, entry.payload * 2) if covered else None
        expected = self.model.append(key, entry, at, tail_origin, snapshot)
        provider = self.providers[side]
        outcome: object
        try:
            outcome = self.run(provider.append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot))
        except Conflict as conflict:
            outcome = Refused(conflict.keys)
            self.model.check_head(conflict.head, key)
        assert outcome == expected

    @rule(key=_keys, side=_sides, last=_marks, before=_marks, after=_marks, name=_names)
    def read(
        self, key: SessionKey, side: int, last: int | None, before: int | None, after: int | None, name: str | None
    ) -> None:
        provider = self.providers[side]
        log = self.run(provider.read(key, last=last, before=before, after=after, entry_id=name))
        self.model.check_head(log.head if log else None, key)
        if log is not None:
            session, page = self.model.sessions[key], provider.limits.page
            seqs = select_seqs(len(session.entries), page, last=last, before=before, after=after)
            session.check_entries(log, seqs)
            if name is None or not self.model.forgotten(key, name):
                session.check_match(log, name)

    @rule(key=_keys, side=_sides)
    def delete(self, key: SessionKey, side: int) -> None:
        assert self.run(self.providers[side].delete(key)) is self.model.delete(key)

    @rule(user=st.sampled_from(USERS), side=_sides)
    def delete_user(self, user: str, side: int) -> None:
        assert self.run(self.providers[side].delete_user(user)) == self.model.delete_user(user)

    @rule(key=_keys, side=_sides, offset=_offsets, expected_origin=_expected)
    def renew(self, key: SessionKey, side: int, offset: int, expected_origin: bool | None) -> None:
        at, tail_origin = self.model.position(key, offset, 0), self.origin(key, expected_origin)
        renewed = self.run(self.providers[side].renew(key, at=at, tail_origin=tail_origin))
        assert renewed is self.model.renew(key, at, tail_origin)

    @rule(
        known=_known,
        side=_sides,
        back=st.integers(0, 3),
        fresh=st.sampled_from([True, True, False]),
        payload=st.binary(max_size=8),
    )
    def rewrite(self, known: int, side: int, back: int, fresh: bool, payload: bytes) -> None:
        """Rewrite the entry that is so far back."""
        key = self.known(known)
        session = self.model.sessions.get(key, ModelSession(deleted=True))
        seq = len(session.entries) - back
        entry = replace(session.entries[seq - 1], payload=payload) if seq > 0 else Entry("none", payload)
        last = session.rewrite_id if fresh else "other"
        self.last_rewrites[key] = (entry, Position(session.generation, max(0, seq)), self.new_id(), last)
        self.retry_rewrite(known, side)

    @rule(known=_known, side=_sides)
    def retry_rewrite(self, known: int, side: int) -> None:
        """Rewrite with the same arguments as before, at any later time."""
        key = self.known(known)
        if key not in self.last_rewrites:
            return
        entry, at, rewrite_id, last = self.last_rewrites[key]
        expected = self.model.rewrite(key, entry, at, rewrite_id, last)
        rewrite = self.providers[side].rewrite(
            key, entry, at=at, rewrite_id=rewrite_id, last_rewrite_id=last, snapshot=None
        )
        try:
            head: Head | None = self.run(rewrite)
        except Conflict as conflict:
            assert not expected
            head = conflict.head
        else:
            assert expected
        self.model.check_head(head, key)

    @rule(
        known=_known,
        copy=_keys,
        side=_sides,
        first=st.sampled_from([1, 1, 1, 2, 3]),
        count=st.sampled_from([1, 2, 99, 99]),
        change=st.sampled_from(["", "", "", "", "origin", "behind", "rewrite_id", "generation", "id"]),
    )
    def restore(self, known: int, copy: SessionKey, side: int, first: int, count: int, change: str) -> None:
        """Restore a session, or a part of it, as a look-alike one, perhaps with a change."""
        source, restorable = self.known(known), ability(self.providers[side], Restorable)
        head, _ = self.head(source), self.head(copy)
        if restorable is None or head is None:
            return
        stored = self.model.sessions[source].entries
        entries = stored[first - 1 : first - 1 + count]
        behind = stored[first - 2].origin if first > 1 and entries else ""
        if not head.deleted:
            if not entries:
                return
            head = upto(head, stored, first - 1 + len(entries))
        head, entries, behind = changed(replace(head, key=copy), entries, behind, change)
        expected = self.model.restore(head, entries, behind)
        outcome: object
        try:
            outcome = self.run(restorable.restore(head, entries, behind=behind))
        except Conflict as conflict:
            outcome = Refused(conflict.keys)
            self.model.check_head(conflict.head, copy)
        assert outcome == expected
        if outcome is True:
            assert self.head(copy) == head

    @rule(user=st.sampled_from(USERS), side=_sides, limit=st.integers(1, 4))
    def list_all(self, user: str, side: int, limit: int) -> None:
        alive = self.model.keys_of(user, deleted=False)
        listed: list[Head] = []
        cursor = None
        while True:
            page = self.run(self.providers[side].list(user, limit=limit, cursor=cursor))
            listed += page.heads
            cursor = page.cursor
            if cursor is None or len(listed) > len(alive):
                break
        # The clocks of two connections may tie or differ a little, so the order is compared with the returned times.
        assert {head.key for head in listed} == alive
        assert len(listed) == len(alive)
        assert [head.active_us for head in listed] == sorted((head.active_us for head in listed), reverse=True)
        for head in listed:
            self.model.check_head(head, head.key)

    @rule(user=st.sampled_from(USERS), side=_sides, limit=st.integers(1, 4))
    def list_for_operators(self, user: str, side: int, limit: int) -> None:
        users = ability(self.providers[side], Users)
        if users is not None:
            assert self.run(walk_users(users, limit)) == {key.user_id for key in self.model.sessions}
            tombstones = self.run(walk_tombstones(users, user, limit))
            assert set(tombstones) == self.model.keys_of(user, deleted=True)
            for key, head in tombstones.items():
                self.model.check_head(head, key)

    @rule(side=_sides)
    def store_info(self, side: int) -> None:
        assert self.run(self.providers[side].store_info()) == self.info

    def known(self, number: int) -> SessionKey:
        """Return a session that exists, if there is one."""
        keys = list(self.model.sessions) or [SessionKey(USERS[0], SESSIONS[0])]
        return keys[number % len(keys)]

    def head(self, key: SessionKey) -> Head | None:
        """Read a head, and check it."""
        log = self.run(self.providers[0].read(key, last=0))
        head = log.head if log else None
        self.model.check_head(head, key)
        return head

    def origin(self, key: SessionKey, expected: bool | None) -> str | None:
        """Return the origin of the tail, or another one."""
        session = self.model.sessions.get(key)
        return None if expected is None else session.tail_origin if session and expected else "other"

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
