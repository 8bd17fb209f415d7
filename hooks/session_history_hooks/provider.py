"""The interface that every store implements."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from session_history_hooks.keys import SessionKey
from session_history_hooks.limits import Limits
from session_history_hooks.listing import Page
from session_history_hooks.log import Appended, Entry, Head, Log, Position, Snapshot


@runtime_checkable
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
        """Return whether the store is started and answers. Never raises."""

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
            most ``limits.page`` entries are returned: the oldest of the range if ``after`` is given, else the newest.
        :param before: only entries with a smaller seq.
        :param after: only entries with a larger seq.
        :param entry_id: also look up this id, in the whole generation as far as ids are remembered.
        :returns: ``None`` for a session never seen; a log with ``head.deleted`` for a tombstone.
        """

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        """Append ``entry`` directly behind position ``at``, or change nothing.

        ``(g, 0)`` begins generation ``g``: 0 for a session never seen, and the tombstone's generation + 1 after a
        delete. An entry whose id this generation already has is not stored again: the append returns the recorded
        position, with ``replayed=True``.

        :param snapshot: the summary that covers this entry. Without it the old snapshot stays, and is stale.
        :raises Conflict: the log does not end at ``at``, or has another generation.
        :raises LimitExceeded: the entry or the summary is too large, or the log is full.
        """

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        """Change the head's ``heartbeat`` if ``at`` is still the tail, and return whether it is."""

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        """Replace the payload of the entry at ``at``, whose id is ``entry.id``. For erasure and key rotation only.

        :param rewrites: the head's ``rewrites`` that the author saw; the new head has one more.
        :param snapshot: replaces the head's snapshot, also if it is ``None``.
        :raises Conflict: there is no such entry, or the head has another number of rewrites.
        :raises LimitExceeded: the entry or the summary is too large.
        """

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
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
