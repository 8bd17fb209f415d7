"""Bugs of a whole store: its users, what is restored into it, its identity, and wrappers around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from session_history.providers.memory import MemoryProvider
from session_history_hooks import (
    Conflict,
    Entry,
    Head,
    Page,
    Restorable,
    Searchable,
    SessionHistoryProvider,
    Shard,
    StoreInfo,
    UserPage,
    Users,
    new_origin,
)


class UsersWithSessions(MemoryProvider):
    """Lists no user whose sessions are all deleted."""

    async def list_users(self, **keywords: Any) -> UserPage:
        page = await super().list_users(**keywords)
        living = {user for user, sessions in self._users.items() if any(not s.head.deleted for s in sessions.values())}
        return replace(page, user_ids=tuple(user for user in page.user_ids if user in living))


class LostUser(MemoryProvider):
    """Loses the first user of each page but the first."""

    async def list_users(self, **keywords: Any) -> UserPage:
        page = await super().list_users(**keywords)
        return replace(page, user_ids=page.user_ids[1:]) if keywords.get("cursor") else page


class AskedUsers(MemoryProvider):
    """Lists also users of whom a caller asked for nothing but a read."""

    async def read(self, key: Any, **keywords: Any) -> Any:
        self._require_started()
        self._users[key.user_id]
        return await super().read(key, **keywords)


class RecreatedTombstones(MemoryProvider):
    """Lists a re-created session as a tombstone, too."""

    async def list_tombstones(self, user_id: str, **keywords: Any) -> Page:
        page = await super().list_tombstones(user_id, **keywords)
        again = [each.head for each in self._sessions(user_id).values() if each.head.tail.generation]
        return replace(page, heads=(*page.heads, *(head for head in again if not head.deleted)))


class AnyCursor(MemoryProvider):
    """Begins again with a cursor that it did not make."""

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        try:
            return await super().list_users(limit=limit, cursor=cursor)
        except ValueError:
            return await super().list_users(limit=limit)


class Resurrection(MemoryProvider):
    """Restores a session over a later tombstone."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        if session is not None and session.head.deleted and entries:
            del self._users[head.key.user_id][head.key.session_id]
        return await super().restore(head, entries, behind=behind)


class DivergedLog(MemoryProvider):
    """Restores behind a log that begins otherwise."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        first = head.tail.seq - len(entries) + 1
        if session is not None and not session.head.deleted and first <= len(session.entries):
            stored = session.entries[first - 1 : head.tail.seq]
            entries = [*stored, *entries[len(stored) :]]
            head = replace(head, tail_origin=entries[-1].origin)
        return await super().restore(head, entries, behind=behind)


class UncheckedBehind(MemoryProvider):
    """Compares the entries of a restore, but not the entry ahead of them."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        first = head.tail.seq - len(entries) + 1
        if behind and session is not None and 1 < first <= len(session.entries) + 1:
            behind = session.entries[first - 2].origin
        return await super().restore(head, entries, behind=behind)


class OneRestore(MemoryProvider):
    """Takes the repeated restore of a log for a conflict."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        if session is not None and not session.head.deleted and head.tail.seq <= len(session.entries):
            raise Conflict(session.head)
        return await super().restore(head, entries, behind=behind)


class RestoredNow(MemoryProvider):
    """Gives a restored session the time of its restore."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        written = await super().restore(head, entries, behind=behind)
        if written:
            session = self._users[head.key.user_id][head.key.session_id]
            session.head = replace(head, active_us=head.active_us + 1, changed_us=head.changed_us + 1)
        return written


class HeadOfTheFirstPage(MemoryProvider):
    """Keeps the times and the snapshot that the first page of a restore had."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        old = session.head if session and not session.head.deleted else None
        written = await super().restore(head, entries, behind=behind)
        if written and old:
            kept = replace(old, tail=head.tail, tail_origin=head.tail_origin)
            self._users[head.key.user_id][head.key.session_id].head = kept
        return written


class RestoreForgetsIds(MemoryProvider):
    """Does not remember the ids of restored entries."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        written = await super().restore(head, entries, behind=behind)
        if written:
            self._users[head.key.user_id][head.key.session_id].seqs.clear()
        return written


class FirstOfTwoIds(MemoryProvider):
    """Finds the older of two restored entries with one id."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        older = dict(session.seqs) if session else {}
        for seq, entry in enumerate(entries, start=head.tail.seq - len(entries) + 1):
            for name in (entry.id, *entry.keys):
                older.setdefault(name, seq)
        written = await super().restore(head, entries, behind=behind)
        if written:
            self._users[head.key.user_id][head.key.session_id].seqs |= older
        return written


class RestoreOverRewrite(MemoryProvider):
    """Restores pages of different rewrites into one log."""

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        session = self._session(head.key)
        if session is not None and not session.head.deleted and entries:
            head = replace(head, rewrite_id=session.head.rewrite_id)
        return await super().restore(head, entries, behind=behind)


class NewIncarnation(MemoryProvider):
    """Has another incarnation in each answer."""

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        return replace(await super().store_info(shard=shard), incarnation=new_origin())


class OneIncarnation(MemoryProvider):
    """Has the incarnation of all other stores."""

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        return replace(await super().store_info(shard=shard), incarnation="memory")


class IncarnationOfAStart(MemoryProvider):
    """Makes an incarnation at each start."""

    async def start(self) -> None:
        if not self._started:
            self._info = replace(self._info, incarnation=new_origin())
        await super().start()


class LastClaim(MemoryProvider):
    """Gives a store the place that the last caller names."""

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        info = await super().store_info()
        self._info = replace(info, shard=shard or info.shard)
        return self._info


class AgreeableShard(MemoryProvider):
    """Returns the place that the caller names, and keeps the first one."""

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        info = await super().store_info(shard=shard)
        return replace(info, shard=shard or info.shard)


class HiddenAbility(MemoryProvider):
    """Hides its ability to restore, as a wrapper that knows only some abilities."""

    def ability(self, kind: object) -> object | None:
        return None if kind is Restorable else super().ability(kind)


class InventedAbility(MemoryProvider):
    """Says that it can search, which it cannot."""

    def ability(self, kind: object) -> object | None:
        return self if kind is Searchable else super().ability(kind)


class UnknownAbilityRaises(MemoryProvider):
    """Raises an error if it is asked for an ability that it does not know."""

    def ability(self, kind: object) -> object | None:
        return {Users: self, Restorable: self, Searchable: None}[kind]  # type: ignore[index]


class Prefixed:
    """A wrapper that gives each user of its store another name."""

    PREFIX = "tenant "

    def __init__(self) -> None:
        self._inner = MemoryProvider()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        page = await self._inner.list(self.PREFIX + user_id, limit=limit, cursor=cursor)
        return replace(page, heads=tuple(map(self._outer, page.heads)))

    async def delete_user(self, user_id: str) -> int:
        return await self._inner.delete_user(self.PREFIX + user_id)

    async def read(self, key: Any, **keywords: Any) -> Any:
        log = await self._inner.read(self._key(key), **keywords)
        return log and replace(log, head=self._outer(log.head))

    async def append(self, key: Any, entry: Entry, **keywords: Any) -> Any:
        try:
            return await self._inner.append(self._key(key), entry, **keywords)
        except Conflict as conflict:
            raise Conflict(conflict.head and self._outer(conflict.head), keys=conflict.keys) from None

    async def renew(self, key: Any, **keywords: Any) -> bool:
        return await self._inner.renew(self._key(key), **keywords)

    async def rewrite(self, key: Any, entry: Entry, **keywords: Any) -> Head:
        try:
            return self._outer(await self._inner.rewrite(self._key(key), entry, **keywords))
        except Conflict as conflict:
            raise Conflict(conflict.head and self._outer(conflict.head)) from None

    async def delete(self, key: Any) -> bool:
        return await self._inner.delete(self._key(key))

    def _key(self, key: Any) -> Any:
        return replace(key, user_id=self.PREFIX + key.user_id)

    def _outer(self, head: Head) -> Head:
        return replace(head, key=replace(head.key, user_id=head.key.user_id.removeprefix(self.PREFIX)))


STORE_BUGS: dict[str, type[SessionHistoryProvider]] = {
    "users without those of tombstones only": UsersWithSessions,
    "users of one page that are lost": LostUser,
    "users who have nothing": AskedUsers,
    "tombstones of re-created sessions": RecreatedTombstones,
    "users from any cursor": AnyCursor,
    "a restore over a later tombstone": Resurrection,
    "a restore over a log that diverged": DivergedLog,
    "a restore behind any entry": UncheckedBehind,
    "a restore that cannot be repeated": OneRestore,
    "a restore that loses the times": RestoredNow,
    "a restore with the head of its first page": HeadOfTheFirstPage,
    "a restore that forgets ids": RestoreForgetsIds,
    "the first of two entries with one id": FirstOfTwoIds,
    "a restore over another rewrite": RestoreOverRewrite,
    "an incarnation that changes": NewIncarnation,
    "the same incarnation in all stores": OneIncarnation,
    "an incarnation of each start": IncarnationOfAStart,
    "a shard that the last claim takes": LastClaim,
    "a shard that agrees to each claim": AgreeableShard,
    "a hidden ability": HiddenAbility,
    "an invented ability": InventedAbility,
    "an error for an unknown ability": UnknownAbilityRaises,
    "an ability of the store beneath a wrapper": Prefixed,
}
