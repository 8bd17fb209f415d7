"""The interface that every store implements."""

from __future__ import annotations

from typing import Protocol

from session_history_hooks.limits import Limits
from session_history_hooks.listing import Page
from session_history_hooks.log import Appended, Entry, Head, Log, Position, SessionKey, Snapshot
from session_history_hooks.store import Shard, StoreInfo


class SessionHistoryProvider(Protocol):
    """Stores logs of entries; knows nothing of messages, turns or models.

    A constructor does no I/O. Every method may raise :class:`~session_history_hooks.Unavailable`,
    :class:`~session_history_hooks.Corrupt` or :class:`~session_history_hooks.IncompatibleStore`; errors of a
    driver are turned into these. No method blocks the event loop. A returned value or a raised error never changes
    afterwards: it shares no mutable object with the provider.
    """

    @property
    def limits(self) -> Limits: ...

    async def start(self) -> None:
        """Open the store, creating or upgrading what is missing. A second call does nothing.

        :raises ConfigurationError: the store cannot be opened with these options.
        :raises StoreReadOnly: this process may not write to the store.
        """

    async def stop(self) -> None:
        """Finish pending calls and close the store. A second call does nothing; ``start`` reopens the store."""

    async def health(self) -> bool:
        """Return whether the store is started, answers, and takes writes as far as it knows. Never raises."""

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        """Return which store this is.

        :param shard: the place that the store is to take among shards. It takes it if it has none, and keeps it: the
            answer names the place that it has.
        :raises ConfigurationError: ``shard`` is given, and this cannot be a shard.
        """

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        """Read a range of entries of the newest generation, in one round trip. Never writes.

        :param last: read only the newest ``last`` entries of the range; 0 reads only the head. Without ``last`` at
            most ``limits.page`` entries with ``limits.page_bytes`` bytes of payload are returned, but at least one: the
            oldest of the range if ``after`` is given, else the newest.
        :param before: only entries with a smaller seq.
        :param after: only entries with a larger seq.
        :param entry_id: also look up this id or key, in the whole generation as far as ids are remembered.
        :returns: ``None`` for a session never seen; a log with ``head.deleted`` for a tombstone.
        """

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        """Append ``entry`` directly behind position ``at``, or change nothing.

        ``(g, 0)`` begins generation ``g``: 0 for a session never seen, and the tombstone's generation + 1 after a
        delete. An entry whose id this generation already has, as the id or a key of an entry, is not stored again: the
        append returns the recorded position, with ``replayed=True``.

        :param tail_origin: the origin of the entry at ``at``: with another one there, for example after the restore of
            a backup, the append is a conflict. Not compared if ``at`` begins a generation.
        :param snapshot: the summary that covers this entry. Without it the old snapshot stays, and is stale.
        :raises Conflict: the log does not end at ``at``, has another generation, or has a key of the entry already.
        :raises LimitExceeded: the entry or the summary is too large, or the log is full.
        :raises InvalidKey: the origin or a key of the entry is not valid.
        """

    async def renew(
        self,
        key: SessionKey,
        *,
        at: Position,
        tail_origin: str | None = None,
    ) -> bool:
        """Change the head's ``heartbeat`` if ``at`` is still the tail, and return whether it is.

        :param tail_origin: the origin of the entry at ``at``, if another one there is not meant.
        """

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
        """Replace payload and text of the entry at ``at``. For erasure and key rotation only.

        A rewrite that the head names as its newest is not done again: its author may retry it.

        :param entry: the entry with its new payload and text; it keeps id, origin, keys and ``bookkeeping``.
        :param rewrite_id: identifies the rewrite; its author makes it with :func:`~session_history_hooks.new_origin`.
        :param last_rewrite_id: the head's ``rewrite_id`` that the author saw.
        :param snapshot: replaces the head's snapshot, also if it is ``None``.
        :raises Conflict: no entry with this id and origin stands there, or the head has another ``rewrite_id``.
        :raises LimitExceeded: the entry or the summary is too large.
        """

    async def list(
        self,
        user_id: str,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """List the sessions of a user that are not deleted, newest activity first.

        While a caller walks through all pages, an unchanged session appears exactly once, a changed one at most once.

        :param limit: 1 or more; a page may hold fewer sessions, and never more than ``limits.page``.
        :raises InvalidCursor: the cursor was not made by this method.
        """

    async def delete(self, key: SessionKey) -> bool:
        """Remove all entries of a session and leave a tombstone without content.

        :returns: whether the session existed. A session never seen leaves no tombstone.
        """

    async def delete_user(self, user_id: str) -> int:
        """Delete every session of a user and return how many existed."""


def missing_members(provider: object) -> list[str]:
    """Return the names of what an object lacks to be a provider; all of them for a class."""
    members = [name for name in vars(SessionHistoryProvider) if not name.startswith("_")]
    return [name for name in members if isinstance(provider, type) or not hasattr(provider, name)]
