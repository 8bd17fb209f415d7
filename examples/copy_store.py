"""Copy all sessions of one store into another, for a backup or a move.

    python copy_store.py tablestore://my-instance.cn-hangzhou.ots.aliyuncs.com sqlite:///backup.db

Services may write to the source meanwhile. Each session is copied as it stood at one moment, and these moments differ
from session to session. Nothing may write to the target but this script. A copy that broke off can be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

from session_history import SessionHistoryService
from session_history_hooks import (
    Conflict,
    Entry,
    Head,
    Position,
    Restorable,
    SessionHistoryError,
    SessionHistoryProvider,
    Users,
    ability,
)

A = TypeVar("A")


class Changed(Exception):
    """A session that was deleted or rewritten while it was copied."""


async def copy_store(source: SessionHistoryProvider, target: SessionHistoryProvider) -> tuple[int, list[str]]:
    """Copy all sessions and tombstones. Return their number, and the sessions that could not be copied."""
    copied, failed = 0, []
    async for user_id in users_of(source):
        async for head in heads_of(source, user_id):
            try:
                await copy_session(source, target, head)
                copied += 1
            except (Changed, Conflict):
                failed.append(str(head.key))
    return copied, failed


async def copy_session(source: SessionHistoryProvider, target: SessionHistoryProvider, head: Head) -> None:
    """Copy a session up to the tail that ``head`` names, or its tombstone."""
    writer = require(target, Restorable)
    if head.deleted:
        await writer.restore(head)
        return
    seq, behind = 0, ""
    while seq < head.tail.seq:
        page = await read_page(source, head, seq, target.limits.page)
        seq, origin = seq + len(page), page[-1].origin
        await writer.restore(head_at(head, seq, origin), page, behind=behind)
        behind = origin


async def read_page(source: SessionHistoryProvider, head: Head, after: int, most: int) -> tuple[Entry, ...]:
    """Return the entries behind ``after``, but none behind the tail that ``head`` names.

    :raises Changed: the session is not the same any more.
    """
    log = await source.read(head.key, after=after)
    if log is None or (log.head.tail.generation, log.head.rewrite_id) != (head.tail.generation, head.rewrite_id):
        raise Changed
    page = log.entries[: min(most, head.tail.seq - after)]
    if log.head.deleted or not page:
        raise Changed
    return page


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
        if page.unnamed:
            raise SystemExit(f"{page.unnamed} users have damaged ids and cannot be copied")
        for user_id in dict.fromkeys(page.user_ids):
            if user_id not in seen:
                yield user_id
        seen.update(page.user_ids)
        if (cursor := page.cursor) is None:
            return


async def heads_of(provider: SessionHistoryProvider, user_id: str) -> AsyncIterator[Head]:
    """Walk through the sessions and the tombstones of a user."""
    for walk in (provider.list, require(provider, Users).list_tombstones):
        cursor = None
        while True:
            page = await walk(user_id, limit=100, cursor=cursor)
            if page.unreadable or page.unnamed:
                lost = [key.session_id for key in page.unreadable]
                raise SystemExit(f"sessions of user {user_id!r} are damaged and cannot be copied: {lost}")
            for head in page.heads:
                yield head
            if (cursor := page.cursor) is None:
                break


def require(provider: SessionHistoryProvider, kind: Callable[..., A]) -> A:
    found = ability(provider, kind)
    if found is None:
        raise SystemExit(f"{provider} cannot be copied: it lacks the ability {kind.__name__}")
    return found


async def main(source_url: str, target_url: str) -> int:
    source, target = map(SessionHistoryService.from_url, (source_url, target_url))
    async with source, target:
        copied, failed = await copy_store(source.provider, target.provider)
    print(f"Copied {copied} sessions and tombstones.")
    for session in failed:
        print(f"Not copied, since it changed meanwhile or the target has another one: {session}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Copy all sessions of one store into another.")
    parser.add_argument("source", help="URL of the store to read")
    parser.add_argument("target", help="URL of the store to write, at best an empty one")
    given = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(given.source, given.target)))
    except SessionHistoryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
