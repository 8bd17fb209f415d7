"""Errors that a provider may raise. Each error is also the builtin that fits it."""

from __future__ import annotations


class SessionHistoryError(Exception):
    """Base of every error of this project."""


class ConfigurationError(SessionHistoryError, ValueError):
    """The configuration is incomplete or wrong. The error names the setting, never a secret."""


class InvalidKey(SessionHistoryError, ValueError):
    """A user id, session id or turn id is not a valid key.

    :ivar field: the id that is not valid, e.g. ``"user_id"``.
    :ivar reason: why it was refused. Neither the message nor the reason repeats the value.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


class InvalidCursor(SessionHistoryError, ValueError):
    """A cursor was not made by this project, or it no longer fits its session."""


class LimitExceeded(SessionHistoryError, ValueError):
    """The value is larger than the provider can hold. Nothing was written.

    :ivar what: the quantity that is too large, e.g. ``"entry bytes"``.
    :ivar size: the size that was requested, in the unit that ``what`` names.
    :ivar limit: the largest size that is possible, in the same unit.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what = what
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.what}: {self.size} is over the limit of {self.limit}"


class Unavailable(SessionHistoryError, ConnectionError):
    """The store cannot be reached or is too busy. Trying again later may help."""


class StoreFull(Unavailable):
    """The store has no room left. Nothing was written."""


class BackupExists(SessionHistoryError, FileExistsError):
    """There is a file where a backup was to be written. It was not touched."""


class StoreReadOnly(SessionHistoryError, PermissionError):
    """The store does not allow this process to write."""


class Corrupt(SessionHistoryError, ValueError):
    """The stored data cannot be understood. It is left as it is."""


class IncompatibleStore(SessionHistoryError, ValueError):
    """The store belongs to another application or to a newer version. It is left as it is."""
