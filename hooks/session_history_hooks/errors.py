"""Errors a provider may raise. Each is also the builtin that fits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_history_hooks.log import Head


class SessionHistoryError(Exception):
    """Base of every error of this project."""


class ConfigurationError(SessionHistoryError, ValueError):
    """The configuration is incomplete or wrong. It names the setting, never a secret."""


class InvalidKey(SessionHistoryError, ValueError):
    """A user id, session id or turn id that can not be one.

    :ivar field: which of them it was, e.g. ``"user_id"``.
    :ivar reason: why it was refused. Neither the message nor the reason repeats the value.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


class InvalidCursor(SessionHistoryError, ValueError):
    """A cursor that this project did not hand out, or that no longer fits its session."""


class LimitExceeded(SessionHistoryError, ValueError):
    """More than the provider can hold. Nothing was written.

    :ivar what: what is too large, e.g. ``"entry bytes"``.
    :ivar size: what was asked for, in the unit that ``what`` names.
    :ivar limit: the most that is possible, in the same unit.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what = what
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.what}: {self.size} is over the limit of {self.limit}"


class Conflict(SessionHistoryError, RuntimeError):
    """Something else stands where an entry should go. Nothing was written.

    :ivar head: what stands there now; ``None`` if the session was never seen.
    :ivar anew: the life that stands there began where one had expired, which shows no tombstone. An append at
        ``(0, 0)``, of an author who saw no session, belongs to it. Never true if any life before it was deleted.
    """

    def __init__(self, head: Head | None, *, recreated: bool = False) -> None:
        if head is not None and not hasattr(head, "tail"):
            raise TypeError(f"a Conflict takes the Head that stands there, or None, not {type(head).__name__}")
        super().__init__(head)
        self.head = head
        self.recreated = recreated

    def __str__(self) -> str:
        return f"the log stands at {self.head.tail if self.head else 'nothing'}"


class Unavailable(SessionHistoryError, ConnectionError):
    """The store can not be reached or is too busy. Trying again later may help."""


class StoreFull(Unavailable):
    """The store has no room left. Nothing was written."""


class StoreReadOnly(SessionHistoryError, PermissionError):
    """The store can not be written by this process."""


class Corrupt(SessionHistoryError, ValueError):
    """What is stored can not be understood. It is left as it is."""


class IncompatibleStore(SessionHistoryError, ValueError):
    """The store is somebody else's, or a newer version's. It is left as it is."""
