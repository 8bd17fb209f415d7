"""What a store must be able to do."""

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
    :class:`~session_history_hooks.Corrupt` or :class:`~session_history_hooks.IncompatibleStore`, and no
    error of a driver escapes. No method blocks the event loop. What a method returned or raised never changes
    afterwards: it shares nothing with the provider that the provider goes on writing to.
    """

    @property
    def limits(self) -> Limits: ...

    async def start(self) -> None:
        """Open the store, creating or upgrading what is missing. A second call does nothing.

        :raises ConfigurationError: it can not be where the options say.
        :raises StoreReadOnly: it can not be written.
        """

    async def stop(self) -> None:
        """Close the store. What waits is finished first. A second call does nothing; ``start`` reopens."""

    async def health(self) -> bool:
        """Whether the store is started and answers. Never raises."""

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        """Read a stretch of the newest generation, in one round trip. Never writes.

        :param last: the newest so many entries of the range; 0 reads the head alone. Without it at most
            ``limits.page`` entries come: the oldest of the range if ``after`` is given, else the newest.
        :param before: only entries with a smaller seq.
        :param after: only entries with a larger seq.
        :param entry_id: also look this id up, in the whole generation as far as ids are remembered.
        :returns: ``None`` for a session never seen; a head with ``deleted`` for a tombstone.
        """

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        """Put ``entry`` directly behind position ``at``, or change nothing.

        ``(g, 0)`` begins generation ``g``: 0 for a session never seen, the tombstone's + 1 after a
        delete. An id that this generation holds is not stored again: its position comes back as replayed.

        :param snapshot: the summary that covers this entry; without it the old one stays, and is stale.
        :raises Conflict: something else stands there, or the generation is another.
        :raises LimitExceeded: the entry, the summary or the log would be too large.
        """

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        """Move the head's ``heartbeat`` if ``at`` is still the tail; say whether it was."""

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        """Replace the payload of the entry at ``at``, which has this entry's id. Erasure and key rotation only.

        :param rewrites: the head's ``rewrites`` that the author saw; the new head has one more.
        :param snapshot: replaces the head's snapshot, also when ``None``.
        :raises Conflict: no such entry, or another number of rewrites.
        :raises LimitExceeded: the entry or the summary is too large.
        """

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        """Sessions of a user that are not deleted, newest activity first.

        Over a whole walk a session that is not touched appears exactly once, a touched one at most once.

        :param limit: 1 or more; a page may hold fewer, and ``limits.page`` at the most.
        :raises InvalidCursor: not a cursor of this method.
        """

    async def delete(self, key: SessionKey) -> bool:
        """Remove all entries and leave a tombstone without content.

        :returns: whether there was a session. What was never seen leaves no tombstone.
        """

    async def delete_user(self, user_id: str) -> int:
        """Delete every session of a user; the number of those that were there."""
