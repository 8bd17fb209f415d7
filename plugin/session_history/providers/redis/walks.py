"""Walks through a store, for operators."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from session_history.providers.redis import scripts
from session_history.providers.redis.answers import Listed, listed
from session_history.providers.redis.client import Client
from session_history.providers.redis.commands import Argument
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.list_range import PAGE
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scans import scan_hash, scan_keys
from session_history.providers.redis.topology import state_of
from session_history_hooks import InvalidCursor, InvalidKey, ListingCursor, Page, UserPage, check_key
from session_history_hooks.stored import listed_page

SCANNED, SCANS = 10, 100
"""Keys that a server looks up at least for one answer, and the most such answers for one page of users."""


class _Place(NamedTuple):
    """A place in a walk through all keys.

    :ivar state: the state of the servers when the walk began.
    :ivar server: number of servers that were scanned wholly.
    :ivar scan: the cursor of the next server.
    :ivar found: digests of users that were found already.
    """

    state: str
    server: int
    scan: str
    found: list[str]

    @classmethod
    def begin(cls, state: str) -> _Place:
        return cls(state, 0, "0", [])

    def encode(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode()

    @classmethod
    def decode(cls, cursor: str) -> _Place:
        """:raises InvalidCursor: :meth:`encode` did not make it."""
        try:
            place = cls(*json.loads(base64.b64decode(cursor, b"-_", validate=True)))
            is_place = place.has_types_of(cls.begin("")) and place.server >= 0 and place.scan.isdecimal()
        except (ValueError, TypeError, RecursionError):
            is_place = False
        if not is_place:
            raise InvalidCursor("the cursor was not made by this walk")
        return place

    def has_types_of(self, other: _Place) -> bool:
        return [*map(type, self)] == [*map(type, other)] and {*map(type, self.found)} <= {str}


class Walks:
    """Walks through the users of a store, and through the tombstones of a user.

    :param client: returns the client of the running event loop.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys, client: Callable[[], Awaitable[Client]]) -> None:
        self._runner = runner
        self._keys = keys
        self._client = client

    async def sessions(self, user_id: str, limit: int, cursor: str | None) -> Page:
        start: Sequence[Argument] = ()
        if cursor is not None:
            last = ListingCursor.decode(cursor)
            start = (-last.active_us, last.session_id.encode())
        keys, room, rows, skipped = self._keys.of_user(user_id), min(limit, PAGE), [], 0
        while True:
            answer = await self._runner.run_on_user(scripts.LIST, keys, room, skipped, *start)
            listed_ = Listed.of(answer, user_id)
            rows += listed_.rows
            if listed_.cursor or not listed_.more:
                page = listed_page(rows, len(rows), more=False)
                assert page is not None
                return replace(page, cursor=listed_.cursor)
            # A page cannot end at a damaged row, which took the place of a session.
            skipped += listed_.scanned
            room = min(limit, PAGE) - sum(row.head is not None for row in rows)

    async def users(self, limit: int, cursor: str | None) -> UserPage:
        client = await self._client()
        begin = _Place.begin(await state_of(client)) if cursor is None else _Place.decode(cursor)
        found, place = await self._find(client, begin, limit)
        user_ids = [await self._user_id(digest) for digest in found]
        unnamed = user_ids.count(None)
        state = await state_of(client)
        if state != begin.state:  # Keys may have moved to a server that was scanned before.
            place = _Place.begin(state)
        return UserPage(tuple(filter(None, user_ids)), place.encode() if place else None, unnamed)

    async def tombstones(self, user_id: str, limit: int, cursor: str | None) -> Page:
        behind = b"" if cursor is None else ListingCursor.decode(cursor).session_id.encode()
        stored = await scan_hash(self._runner, scripts.SCAN_TOMBSTONES, self._keys.of_user(user_id))
        names = sorted(name for name, raw in stored.items() if raw and name > behind)
        limit = min(limit, PAGE)
        wanted = limit + 1
        while True:
            rows = [listed(user_id, name, stored[name]) for name in names[:wanted]]
            page = listed_page(rows, limit, more=wanted < len(names))
            if page is not None:
                return page
            wanted *= 2  # so many damaged names, at which no page can end

    async def _find(self, client: Client, begin: _Place, limit: int) -> tuple[Sequence[str], _Place | None]:
        """Return digests of some users, and the place behind them; ``None`` at the end."""
        servers = await client.masters()
        _, server, position, found = begin
        for _ in range(SCANS):
            if found or server >= len(servers):
                break
            count = max(SCANNED, min(limit, PAGE))
            names, position = await scan_keys(client, servers[server], self._keys.tombstones_pattern, position, count)
            found += [digest.decode() for digest in self._keys.user_digests(names)]
            server += position == "0"
        rest = found[limit:]
        place = _Place(begin.state, server, position, rest) if rest or server < len(servers) else None
        return found[:limit], place

    async def _user_id(self, digest: str) -> str | None:
        """Return the id of a user; ``""`` if the user has no session any more, ``None`` if the id is damaged."""
        keys = self._keys.of_digest(digest.encode())
        _, raw, is_shown = await self._runner.run_on_user(scripts.FIND_USER, keys)
        if not is_shown:
            return ""
        try:
            user_id = check_key("user_id", raw.decode())
        except (UnicodeDecodeError, InvalidKey):
            return None
        return user_id if self._keys.of_user(user_id) == keys else None
