"""Logs to restore, and the helpers that restore them.

A payload is opaque, and only the head has the key. So the tests take a log of one user, and restore it as another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from session_history_hooks import (
    Entry,
    Head,
    Position,
    Restorable,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    Users,
    ability,
)
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, read, rewrite
from session_history_hooks.testing.users import walk_tombstones, walk_users

COPY = SessionKey("copy", KEY.session_id)
"""The session that the tests restore."""

FUTURE_US = 2**52
"""A time that no clock shows yet."""


async def build_plain(provider: SessionHistoryProvider) -> None:
    await fill(provider, 3)


async def build_mixed(provider: SessionHistoryProvider) -> None:
    await append(provider, 1, covering(1))
    await provider.append(KEY, replace(entry(2), keys=("k1", "é" * 99)), at=Position(0, 1))
    await provider.append(KEY, Entry(" id ", b"", keys=("K1",), bookkeeping=True), at=Position(0, 2))
    await provider.renew(KEY, at=Position(0, 3))
    await provider.append(KEY, entry(4, bytes(range(256))), at=Position(0, 3))
    await provider.renew(KEY, at=Position(0, 4))


async def build_rewritten(provider: SessionHistoryProvider) -> None:
    for number in (1, 2, 3):
        await append(provider, number, covering(number))
    await rewrite(provider, 2, b"erased", snapshot=covering(3))
    await rewrite(provider, 1, b"", rewrite_id="r2", last="r1", snapshot=Snapshot(3, "o3", b"rewritten"))


async def build_recreated(provider: SessionHistoryProvider) -> None:
    for generation in (0, 1):
        await provider.append(KEY, entry(1), at=Position(generation, 0), snapshot=covering(1))
        await provider.delete(KEY)
    await provider.append(KEY, entry(2), at=Position(2, 0))
    await provider.append(KEY, entry(1), at=Position(2, 1), snapshot=Snapshot(2, "o1", b""))


async def build_bookkeeping(provider: SessionHistoryProvider) -> None:
    for number in (1, 2, 3):
        await provider.append(KEY, replace(entry(number), bookkeeping=True), at=Position(0, number - 1))


async def build_large(provider: SessionHistoryProvider) -> None:
    size = min(3_000_000, provider.limits.entry_bytes)
    for number in (1, 2, 3):
        await provider.append(KEY, entry(number, bytes([number]) * size), at=Position(0, number - 1))


async def build_tombstone(provider: SessionHistoryProvider) -> None:
    await append(provider, 1)
    await provider.delete(KEY)


BUILDERS = {
    "plain": build_plain,
    "mixed": build_mixed,
    "rewritten": build_rewritten,
    "recreated": build_recreated,
    "bookkeeping": build_bookkeeping,
    "large": build_large,
    "tombstone": build_tombstone,
}
"""Functions that build the log or the tombstone of ``KEY`` by ordinary calls."""


def made(count: int, key: SessionKey = COPY, author: str = "") -> tuple[Head, tuple[Entry, ...]]:
    """Make the head and the entries of a log in generation 0."""
    entries = tuple(replace(entry(number), origin=f"{author}o{number}") for number in range(1, count + 1))
    head = Head(
        key,
        Position(0, count),
        entries[-1].origin,
        deleted=False,
        heartbeat=0,
        rewrite_id="",
        active_us=10**15,
        changed_us=10**15 + count,
        snapshot=replace(covering(count), origin=entries[-1].origin),
    )
    return head, entries


def tombstone(generation: int) -> Head:
    """Make the head of a deleted session."""
    return Head(
        COPY,
        Position(generation, 0),
        "",
        deleted=True,
        heartbeat=0,
        rewrite_id="",
        active_us=10**15 + generation,
        changed_us=10**15 + generation,
        snapshot=None,
    )


async def whole(provider: SessionHistoryProvider, key: SessionKey = KEY) -> tuple[Head, tuple[Entry, ...]]:
    """Return a session as its copy has it: its head with the key of the copy, and all its entries."""
    log = await read(provider, key, last=1000)
    return replace(log.head, key=COPY), log.entries


def upto(head: Head, entries: Sequence[Entry], seq: int) -> Head:
    """Return the head that goes with the first ``seq`` entries of a log."""
    if seq == head.tail.seq:
        return head
    return replace(head, tail=replace(head.tail, seq=seq), tail_origin=entries[seq - 1].origin, snapshot=None)


async def restore(
    restorable: Restorable, head: Head, entries: Sequence[Entry], first: int = 1, last: int | None = None
) -> bool:
    """Restore the entries ``first`` to ``last`` of a log."""
    page = entries[first - 1 : last]
    behind = entries[first - 2].origin if first > 1 else ""
    return await restorable.restore(upto(head, entries, first + len(page) - 1), page, behind=behind)


async def restore_all(restorable: Restorable, head: Head, entries: Sequence[Entry], page: int) -> list[bool]:
    """Restore a log in pages, or a tombstone, and return which calls wrote anything."""
    if head.deleted:
        return [await restorable.restore(head)]
    starts = range(1, len(entries) + 1, page)
    return [await restore(restorable, head, entries, first, first + page - 1) for first in starts]


async def check_shown(provider: SessionHistoryProvider, head: Head) -> None:
    """Check that listings show a session, or do not if it is deleted."""
    assert (await provider.list(COPY.user_id, limit=9)).heads == (() if head.deleted else (head,))
    users = ability(provider, Users)
    if users is not None:
        assert COPY.user_id in await walk_users(users, 5)
        assert await walk_tombstones(users, COPY.user_id, 5) == ({COPY: head} if head.deleted else {})
