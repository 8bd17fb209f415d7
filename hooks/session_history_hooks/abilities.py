"""Abilities: what some providers can do and others cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from session_history_hooks.listing import Page
from session_history_hooks.log import Entry, Head, Position, SessionKey
from session_history_hooks.provider import SessionHistoryProvider

A = TypeVar("A")


def ability(provider: SessionHistoryProvider, kind: Callable[..., A]) -> A | None:
    """Return an ability of a provider, e.g. ``ability(provider, Searchable)``; ``None`` if it lacks the ability.

    A provider that has abilities has a method ``ability(kind)``, which returns the object with the methods of the
    ability, perhaps itself, or ``None``. A wrapper has one that asks the provider beneath it, and hands on, changes or
    hides what that returns. A class without the method hides them all: a wrapper that hands on by ``__getattr__``
    what it lacks does not hand on abilities.
    """
    find = getattr(type(provider), "ability", None)
    return cast("A | None", find(provider, kind)) if find else None


@dataclass(frozen=True, slots=True)
class UserPage:
    """Users of a store.

    :ivar cursor: requests the next page; ``None`` on the last page.
    :ivar unnamed: how many more users belong on this page whose ids are damaged.
    """

    user_ids: tuple[str, ...]
    cursor: str | None = None
    unnamed: int = 0


class Users(Protocol):
    """Walks a store. For operators: what it shows belongs to many users."""

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        """List the ids of users with sessions or tombstones, in any order.

        A walk through all pages shows each user that was there all the time, perhaps more than once.

        :param limit: 1 or more; a page may hold fewer users, also none.
        :raises InvalidCursor: the cursor was not made by this method.
        """

    async def list_tombstones(
        self,
        user_id: str,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """List the heads of a user's deleted sessions, in any order.

        A walk through all pages shows each tombstone that was there all the time, perhaps more than once.

        :param limit: 1 or more; a page may hold fewer heads, also none, and never more than ``limits.page``.
        :raises InvalidCursor: the cursor was not made by this method.
        """


class Restorable(Protocol):
    """Writes sessions as they were elsewhere."""

    async def restore(
        self,
        head: Head,
        entries: Sequence[Entry] = (),
        *,
        behind: str = "",
    ) -> bool:
        """Write a tombstone or a page of a log, with generation, positions, ids, origins and times as elsewhere.

        It is written only where there is no session and no later tombstone, or behind a log that begins equally: with
        the generation and ``rewrite_id`` of ``head``, and the origins that ``behind`` and ``entries`` name. Entries
        that stand there already are not written again, and a call that has nothing to write leaves the head as it is.
        After any other call the head is ``head``. So a restore that was interrupted can be repeated.

        A call that fails may have written the first of its entries.

        :param head: as it shall be behind these entries: ``head.tail`` and ``head.tail_origin`` name the last of them.
            A tombstone has no entries; a log has at least one.
        :param entries: neighbours, ascending, at most ``limits.page``. An id may be there twice, if it was not
            remembered; the newest entry then has it.
        :param behind: the origin of the entry ahead of them; ``""`` if they begin the log.
        :returns: whether anything was written.
        :raises Conflict: another log stands there, or a later life; or the log ends before these entries begin.
        :raises LimitExceeded: an entry or the summary is too large, or there are too many entries.
        :raises ValueError: the head does not end with the entries, see :func:`check_restore`.
        """


class Backup(Protocol):
    """Copies a store to a file while it is in use."""

    async def backup(self, path: str, *, overwrite: bool = False) -> None:
        """Write all that the store holds at one moment to a file. Calls that come meanwhile go on.

        The file appears when it is whole and on the disk; a call that fails or is cancelled leaves none. Other users
        of the host can read it only if they can read the store. It is a store of the same kind, with an incarnation of
        its own.

        :param overwrite: replace a file that exists.
        :raises BackupExists: the file exists, or belongs to a store that is in use.
        :raises ConfigurationError: there cannot be a file at the path, or it is the store's own.
        :raises StoreFull: the disk is full.
        :raises StoreReadOnly: this process may not write there.
        """


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An entry that was found.

    :ivar origin: the origin of the entry.
    """

    key: SessionKey
    position: Position
    origin: str


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Entries that were found, the newest first.

    :ivar cursor: requests the next page; ``None`` on the last page.
    """

    hits: tuple[SearchHit, ...]
    cursor: str | None = None


class Searchable(Protocol):
    """Finds entries by the words of :attr:`~session_history_hooks.Entry.text`.

    The store indexes a text in the transaction of its append, and forgets it with its session and with a rewrite that
    has another text or none.
    """

    async def search(
        self,
        user_id: str,
        words: Sequence[str],
        *,
        session_id: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> SearchPage:
        """Find the entries of a user whose text has all of these words, the newest first. Words are compared exactly.

        :param words: one or more.
        :param session_id: only entries of this session.
        :param limit: 1 or more; a page may hold fewer hits.
        :raises InvalidCursor: the cursor was not made by this method.
        """


def check_restore(head: Head, entries: Sequence[Entry], behind: str) -> int:
    """Check the arguments of :meth:`Restorable.restore`, and return the seq of the first entry; 1 for a tombstone.

    :raises ValueError: the head does not end with the entries, or ``behind`` does not fit their seqs.
    """
    if head.deleted:
        if entries or behind or head.tail.seq or (head.tail_origin, head.rewrite_id) != ("", "") or head.snapshot:
            raise ValueError("a tombstone has no entries, no rewrite and no snapshot")
        return 1
    if not entries or entries[-1].origin != head.tail_origin:
        raise ValueError("the head does not name the last of the entries")
    first = head.tail.seq - len(entries) + 1
    if first < 1 or (first > 1) != bool(behind):
        raise ValueError("`behind` must name the entry ahead of the first one, if there is one")
    return first
