"""Copies of all sessions of one store in another, by their abilities: ``python -m contract.copies --sessions 1000``.

The command copies mixed sessions between each pair of stores, and compares digests. Run it in ``tests``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from contract import stores
from contract.mixed_sessions import mixed_sessions
from session_history_hooks import Head, Position, Restorable, SessionHistoryProvider, Users, ability
from session_history_hooks.testing import Connect
from session_history_hooks.testing.subject import opened

A = TypeVar("A")

TOGETHER = 16
"""Number of sessions that are copied at the same time."""


@dataclass(frozen=True)
class Digest:
    """The content of a store, but for heartbeats.

    :ivar sessions: their number, tombstones included.
    :ivar hashes: the hash of each user's sessions.
    """

    sessions: int
    hashes: dict[str, str]


async def copy_store(source: SessionHistoryProvider, target: SessionHistoryProvider, *, page: int | None = None) -> int:
    """Copy all sessions and tombstones, and return how many calls wrote anything.

    :param page: the most entries that a call restores; as many as the target allows if ``None``.
    """
    gate = asyncio.Semaphore(TOGETHER)

    async def copy(head: Head) -> int:
        async with gate:
            return await copy_session(source, target, head, min(page or target.limits.page, target.limits.page))

    heads = [head async for user in users_of(source) async for head in heads_of(source, user)]
    return sum(await asyncio.gather(*map(copy, heads)))


async def copy_session(source: SessionHistoryProvider, target: SessionHistoryProvider, head: Head, page: int) -> int:
    restorable = require(target, Restorable)
    if head.deleted:
        return await restorable.restore(head)
    written, seq, behind = 0, 0, ""
    while seq < head.tail.seq:
        log = await source.read(head.key, after=seq)
        assert log is not None
        for start in range(0, len(log.entries), page):
            entries = log.entries[start : start + page]
            seq += len(entries)
            written += await restorable.restore(head_at(head, seq, entries[-1].origin), entries, behind=behind)
            behind = entries[-1].origin
    return written


def head_at(head: Head, seq: int, origin: str) -> Head:
    """Return the head of a log that is copied up to ``seq``."""
    if seq == head.tail.seq:
        return head
    return replace(head, tail=Position(head.tail.generation, seq), tail_origin=origin, snapshot=None)


async def users_of(provider: SessionHistoryProvider) -> AsyncIterator[str]:
    """Walk through the users, each of them once."""
    users, seen, cursor = require(provider, Users), set[str](), None
    while True:
        page = await users.list_users(limit=100, cursor=cursor)
        for user in page.user_ids:
            if user not in seen:
                yield user
        seen.update(page.user_ids)
        if page.cursor is None:
            return
        cursor = page.cursor


async def heads_of(provider: SessionHistoryProvider, user: str) -> AsyncIterator[Head]:
    """Walk through the sessions and the tombstones of a user."""
    for walk in (provider.list, require(provider, Users).list_tombstones):
        cursor = None
        while True:
            page = await walk(user, limit=100, cursor=cursor)
            for head in page.heads:
                yield head
            if page.cursor is None:
                break
            cursor = page.cursor


async def digest(provider: SessionHistoryProvider) -> Digest:
    hashes, sessions = {}, 0
    async for user in users_of(provider):
        heads = {head.key: head async for head in heads_of(provider, user)}
        sessions += len(heads)
        content = hashlib.sha256()
        for _, head in sorted(heads.items()):
            content.update(repr((replace(head, heartbeat=0), head.snapshot and head.snapshot.summary)).encode())
            seq = 0
            while seq < head.tail.seq:
                log = await provider.read(head.key, after=seq)
                assert log is not None
                for entry in log.entries:
                    content.update(repr((entry, len(entry.payload))).encode() + entry.payload)
                seq += len(log.entries)
        hashes[user] = content.hexdigest()
    return Digest(sessions, hashes)


def require(provider: SessionHistoryProvider, kind: Callable[..., A]) -> A:
    found = ability(provider, kind)
    assert found is not None
    return found


@contextmanager
def source_and_targets(kind: str, folder: Path) -> Iterator[tuple[Connect, dict[str, Connect]]]:
    """Make an empty store of this kind, and one of each kind to copy to."""
    with ExitStack() as stack:
        connects = []
        for number, each in enumerate((kind, *stores.KINDS)):
            (folder / f"{number}").mkdir()
            connects.append(stack.enter_context(stores.store(each, folder / f"{number}")))
        yield connects[0], dict(zip(stores.KINDS, connects[1:], strict=True))


async def copy_to_all(kind: str, connect: Connect, targets: dict[str, Connect], sessions: int) -> list[str]:
    """Copy mixed sessions from a store of one kind to one of each kind, and return the flaws."""
    flaws = []
    async with mixed_sessions(connect, sessions, large=6_000_000, long=2100) as source:
        expected = await digest(source)
        assert expected.sessions == sessions
        for target_kind, connect_to in targets.items():
            async with opened(connect_to) as target:
                began = time.monotonic()
                calls = await copy_store(source, target)
                seconds = time.monotonic() - began
                equal = await digest(target) == expected
                again = await copy_store(source, target)
            text = f"{kind:>14} -> {target_kind:<14} {sessions:,} sessions, {calls:,} writes, {seconds:5.1f} s: "
            text += f"{'equal' if equal else 'DIFFERENT'}, then {again} writes"
            print(text, flush=True)
            flaws += [] if equal and not again else [text]
    return flaws


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m contract.copies", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("sources", nargs="*", choices=[[], *stores.KINDS], help="all by default")
    given = parser.parse_args()
    flaws = []
    for kind in given.sources or stores.KINDS:
        with tempfile.TemporaryDirectory() as folder, source_and_targets(kind, Path(folder)) as (connect, targets):
            flaws += asyncio.run(copy_to_all(kind, connect, targets, given.sessions))
    return 1 if flaws else 0


if __name__ == "__main__":
    sys.exit(main())
