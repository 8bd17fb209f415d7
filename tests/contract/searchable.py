"""A store that can search, to test the part of the contract that no provider of the package keeps yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from session_history.providers.memory import MemoryProvider
from session_history_hooks import (
    Appended,
    Entry,
    Head,
    ListingCursor,
    Position,
    Searchable,
    SearchHit,
    SearchPage,
    SessionKey,
    Snapshot,
)


@dataclass(frozen=True)
class Indexed:
    """An entry in the index.

    :ivar number: grows with every entry that the store adds.
    """

    number: int
    hit: SearchHit
    words: frozenset[str]


class SearchableProvider(MemoryProvider):
    """A memory provider with an index of words."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)
        self._index: dict[SessionKey, dict[str, Indexed]] = {}

    def ability(self, kind: object) -> object | None:
        return self if kind is Searchable else super().ability(kind)

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        appended = await super().append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)
        if not appended.replayed:
            self._add(key, entry, appended.position)
        return appended

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        log = await self.read(key, last=0)
        head = await super().rewrite(
            key, entry, at=at, rewrite_id=rewrite_id, last_rewrite_id=last_rewrite_id, snapshot=snapshot
        )
        if log is not None and log.head.rewrite_id != rewrite_id:
            old = self._index.get(key, {}).pop(entry.origin, None)
            self._add(key, entry, at, old)
        return head

    async def delete(self, key: SessionKey) -> bool:
        deleted = await super().delete(key)
        self._index.pop(key, None)
        return deleted

    async def delete_user(self, user_id: str) -> int:
        deleted = await super().delete_user(user_id)
        self._index = {key: texts for key, texts in self._index.items() if key.user_id != user_id}
        return deleted

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        log = await self.read(head.key, last=0)
        tail = log.head.tail.seq if log else 0
        written = await super().restore(head, entries, behind=behind)
        if written:
            for seq, entry in enumerate(entries, start=head.tail.seq - len(entries) + 1):
                if seq > tail:
                    self._add(head.key, entry, Position(head.tail.generation, seq))
        return written

    async def search(
        self,
        user_id: str,
        words: Sequence[str],
        *,
        session_id: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> SearchPage:
        self._require_started()
        before = None if cursor is None else ListingCursor.decode(cursor).active_us
        found = [
            each
            for key, texts in self._index.items()
            if key.user_id == user_id and session_id in (None, key.session_id)
            for each in texts.values()
            if each.words.issuperset(words) and (before is None or each.number < before)
        ]
        found.sort(key=lambda each: -each.number)
        page = found[:limit]
        more = ListingCursor(page[-1].number, "-").encode() if len(found) > limit else None
        return SearchPage(tuple(each.hit for each in page), more)

    def _add(self, key: SessionKey, entry: Entry, position: Position, old: Indexed | None = None) -> None:
        """Index an entry, in the place of an old one."""
        if entry.text is not None:
            number = old.number if old else next(self._numbers)
            indexed = Indexed(number, SearchHit(key, position, entry.origin), frozenset(entry.text.split(" ")))
            self._index.setdefault(key, {})[entry.origin] = indexed
