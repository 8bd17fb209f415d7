"""Bugs of what an entry and a head hold: origins, times, keys, texts, rewrites, and the bytes of a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from contract.searchable import SearchableProvider
from session_history.providers.memory import MemoryProvider
from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Log,
    Position,
    SearchPage,
    SessionHistoryProvider,
    SessionKey,
    new_origin,
)


class Altered(MemoryProvider):
    """Lets a bug change the head that an append has left."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        session = self._session(key)
        old = session.head if session else None
        appended = await super().append(key, entry, **keywords)
        if not appended.replayed:
            stored = self._users[key.user_id][key.session_id]
            stored.head = self.altered(old, stored.head, entry)
        return appended

    def altered(self, old: Head | None, new: Head, entry: Entry) -> Head:
        raise NotImplementedError


class AltersReads(MemoryProvider):
    """Lets a bug change the entries that a read returns."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        if log is None:
            return None
        match = log.match and (log.match[0], self.altered(log.match[1]))
        return replace(log, entries=tuple(map(self.altered, log.entries)), match=match)

    def altered(self, entry: Entry) -> Entry:
        raise NotImplementedError


class OwnOrigin(MemoryProvider):
    """Makes an origin of its own for each entry."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        return await super().append(key, replace(entry, origin=new_origin()), **keywords)


class OldTailOrigin(Altered):
    """Names the origin of the entry before the tail in the head."""

    def altered(self, old: Head | None, new: Head, entry: Entry) -> Head:
        return replace(new, tail_origin=old.tail_origin) if old and old.tail_origin else new


class UncomparedOrigin(MemoryProvider):
    """Appends behind an entry of any origin."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        return await super().append(key, entry, **keywords | {"tail_origin": None})


class ComparedAtTheBeginning(MemoryProvider):
    """Compares the origin also where a generation begins."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        session = self._session(key)
        if keywords.get("tail_origin") and (session is None or session.head.deleted):
            raise Conflict(session.head if session else None)
        return await super().append(key, entry, **keywords)


class RenewsAnyOrigin(MemoryProvider):
    """Renews a lease behind an entry of any origin."""

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        return await super().renew(key, at=at)


class ReplayedOrigin(MemoryProvider):
    """Takes the origin of a replay over."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        appended = await super().append(key, entry, **keywords)
        session = self._users[key.user_id][key.session_id]
        seq = appended.position.seq
        session.entries[seq - 1] = replace(session.entries[seq - 1], origin=entry.origin)
        return appended


class BookkeepingMoves(Altered):
    """Moves a session in the listing also by bookkeeping."""

    def altered(self, old: Head | None, new: Head, entry: Entry) -> Head:
        return replace(new, active_us=new.changed_us)


class BookkeepingUnnoticed(Altered):
    """Leaves ``changed_us`` as it was after bookkeeping."""

    def altered(self, old: Head | None, new: Head, entry: Entry) -> Head:
        return replace(new, changed_us=new.active_us) if entry.bookkeeping else new


class OldGeneration(Altered):
    """Leaves ``active_us`` as it was if a generation begins with bookkeeping."""

    def altered(self, old: Head | None, new: Head, entry: Entry) -> Head:
        return replace(new, active_us=old.active_us) if old and entry.bookkeeping else new


class UnmarkedBookkeeping(AltersReads):
    """Returns bookkeeping as ordinary entries."""

    def altered(self, entry: Entry) -> Entry:
        return replace(entry, bookkeeping=False)


class UncheckedKeys(MemoryProvider):
    """Stores keys without a look-up of them."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        session = self._session(key)
        for name in entry.keys if session else ():
            self._users[key.user_id][key.session_id].seqs.pop(name, None)
        return await super().append(key, entry, **keywords)


class ForgottenKeys(MemoryProvider):
    """Remembers ids, but no keys."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        appended = await super().append(key, entry, **keywords)
        if not appended.replayed:
            seqs = self._users[key.user_id][key.session_id].seqs
            for name in entry.keys:
                del seqs[name]
        return appended


class KeysOfTheTail(MemoryProvider):
    """Remembers the keys of the newest entries only, as few as one."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        appended = await super().append(key, entry, **keywords)
        session = self._users[key.user_id][key.session_id]
        for old in session.entries[:-20]:
            for name in old.keys:
                session.seqs.pop(name, None)
        return appended


class UnreturnedKeys(AltersReads):
    """Returns entries without their keys."""

    def altered(self, entry: Entry) -> Entry:
        return replace(entry, keys=())


class SortedKeys(AltersReads):
    """Returns the keys of an entry in another order."""

    def altered(self, entry: Entry) -> Entry:
        return replace(entry, keys=tuple(sorted(entry.keys)))


class FirstKnownKey(MemoryProvider):
    """Names only the first of the known keys in a conflict."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        try:
            return await super().append(key, entry, **keywords)
        except Conflict as conflict:
            raise Conflict(conflict.head, keys=conflict.keys[:1]) from None


class PositionFirst(MemoryProvider):
    """Names no keys in a conflict of the position."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        try:
            return await super().append(key, entry, **keywords)
        except Conflict as conflict:
            at_tail = conflict.head is not None and conflict.head.tail == keywords["at"]
            raise Conflict(conflict.head, keys=conflict.keys if at_tail else ()) from None


class KeysBeforeTheId(MemoryProvider):
    """Takes the retry of an entry with keys for a conflict."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        session = self._session(key)
        known = tuple(name for name in entry.keys if session and name in session.seqs)
        if session is not None and known and session.head.tail.generation == keywords["at"].generation:
            raise Conflict(session.head, keys=known)
        return await super().append(key, entry, **keywords)


class ReturnedText(MemoryProvider):
    """Stores the text of an entry, and returns it."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        appended = await super().append(key, entry, **keywords)
        if not appended.replayed:
            self._users[key.user_id][key.session_id].entries[-1] = entry
        return appended


class TextAfterRewrite(SearchableProvider):
    """Finds an entry by the words that it had before a rewrite."""

    async def rewrite(self, key: SessionKey, entry: Entry, **keywords: Any) -> Head:
        return await MemoryProvider.rewrite(self, key, entry, **keywords)


class TextAfterDelete(SearchableProvider):
    """Finds an entry after its session was deleted."""

    async def delete(self, key: SessionKey) -> bool:
        return await MemoryProvider.delete(self, key)


class TextOfAReplay(SearchableProvider):
    """Indexes the text of an append that stored nothing."""

    async def append(self, key: SessionKey, entry: Entry, **keywords: Any) -> Appended:
        appended = await super().append(key, entry, **keywords)
        if appended.replayed:
            self._add(key, entry, appended.position)
        return appended


class SearchPagesOverlap(SearchableProvider):
    """Begins a page of hits with the last hit of the page before."""

    async def search(self, user_id: str, words: Any, **keywords: Any) -> SearchPage:
        page = await super().search(user_id, words, **keywords)
        return replace(page, hits=page.hits[:1] + page.hits[:-1]) if keywords.get("cursor") else page


class CountedRetry(MemoryProvider):
    """Takes the retry of a rewrite for a second one."""

    async def rewrite(self, key: SessionKey, entry: Entry, **keywords: Any) -> Head:
        log = await super().read(key, last=0)
        if log is not None and log.head.rewrite_id == keywords["rewrite_id"]:
            raise Conflict(log.head)
        return await super().rewrite(key, entry, **keywords)


class ForgottenRewrite(Altered):
    """Forgets the newest rewrite with the next append."""

    def altered(self, old: Head | None, new: Head, entry: Entry) -> Head:
        return replace(new, rewrite_id="")


class RewritesAnyOrigin(MemoryProvider):
    """Rewrites the entry of an id with any origin."""

    async def rewrite(self, key: SessionKey, entry: Entry, **keywords: Any) -> Head:
        seq = keywords["at"].seq
        session = self._session(key)
        if session is not None and 0 < seq <= len(session.entries):
            entry = replace(entry, origin=session.entries[seq - 1].origin)
        return await super().rewrite(key, entry, **keywords)


class RewriteReplacesAll(MemoryProvider):
    """Replaces a whole entry in a rewrite, with its keys."""

    async def rewrite(self, key: SessionKey, entry: Entry, **keywords: Any) -> Head:
        head = await super().rewrite(key, entry, **keywords)
        self._users[key.user_id][key.session_id].entries[keywords["at"].seq - 1] = replace(entry, text=None)
        return head


class UnboundedPage(MemoryProvider):
    """Returns all entries of a page, of any size."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        if keywords.get("last") is None:
            after = keywords.get("after")
            limit = self.limits.page if after is None else None
            keywords = keywords | {"last": limit or 10**6}
        return await super().read(key, **keywords)


class EmptyPage(MemoryProvider):
    """Returns no entry at all if the first one exceeds the page."""

    @property
    def limits(self) -> Any:
        return replace(super().limits, page_bytes=10**6)

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        if log is None or keywords.get("last") is not None:
            return log
        oldest_first = keywords.get("after") is not None
        entries = self.limits.fitting(log.entries if oldest_first else log.entries[::-1])
        if entries and len(entries[0].payload) > self.limits.page_bytes:
            entries = []
        if not oldest_first:
            entries.reverse()
        first = log.first if oldest_first else log.first + len(log.entries) - len(entries)
        return replace(log, first=first if entries else log.head.tail.seq + 1, entries=tuple(entries))


class NewestOfThePage(MemoryProvider):
    """Drops the oldest entries of a page that exceeds its bytes, also if they are the ones to return."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        if log is None or keywords.get("after") is None or keywords.get("last") is not None:
            return log
        whole = await super().read(key, **keywords | {"last": self.limits.page})
        if whole is None or len(whole.entries) == len(log.entries):
            return log
        entries = self.limits.fitting(whole.entries[::-1])[::-1]
        return replace(log, first=whole.first + len(whole.entries) - len(entries), entries=tuple(entries))


class UntypedWaiting(MemoryProvider):
    """Claims an order of waiting that the contract does not know."""

    @property
    def limits(self) -> Any:
        return replace(super().limits, waiting="fifo")  # type: ignore[arg-type]


ENTRY_BUGS: dict[str, type[SessionHistoryProvider]] = {
    "an origin that is not stored": OwnOrigin,
    "a head with the origin of an older entry": OldTailOrigin,
    "an append that ignores tail_origin": UncomparedOrigin,
    "a beginning that compares tail_origin": ComparedAtTheBeginning,
    "a renewal that ignores tail_origin": RenewsAnyOrigin,
    "the origin of a replay": ReplayedOrigin,
    "bookkeeping that moves a session": BookkeepingMoves,
    "bookkeeping that leaves changed_us": BookkeepingUnnoticed,
    "bookkeeping that begins a generation unnoticed": OldGeneration,
    "bookkeeping that is returned as speech": UnmarkedBookkeeping,
    "keys that are not checked": UncheckedKeys,
    "keys that are not remembered": ForgottenKeys,
    "keys that are forgotten early": KeysOfTheTail,
    "keys that are not returned": UnreturnedKeys,
    "keys in another order": SortedKeys,
    "a conflict with one of its keys": FirstKnownKey,
    "a conflict of the position without keys": PositionFirst,
    "keys that are checked before the id": KeysBeforeTheId,
    "a text that is returned": ReturnedText,
    "a text that outlives a rewrite": TextAfterRewrite,
    "a text that outlives its session": TextAfterDelete,
    "the text of a replay": TextOfAReplay,
    "pages of hits that overlap": SearchPagesOverlap,
    "a retried rewrite that counts twice": CountedRetry,
    "a rewrite that the next append forgets": ForgottenRewrite,
    "a rewrite that ignores the origin": RewritesAnyOrigin,
    "a rewrite that replaces the keys": RewriteReplacesAll,
    "a page of any number of bytes": UnboundedPage,
    "an empty page before a large entry": EmptyPage,
    "a page that drops its oldest entries": NewestOfThePage,
    "an unknown order of waiting": UntypedWaiting,
}
