"""Every error a user may meet. All derive from :class:`SessionHistoryError` and from the builtin that fits."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from session_history_hooks import (
    ConfigurationError,
    Conflict,
    Corrupt,
    IncompatibleStore,
    InvalidCursor,
    InvalidKey,
    LimitExceeded,
    SessionHistoryError,
    SessionKey,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)

__all__ = [
    "ConfigurationError",
    "Conflict",
    "Corrupt",
    "IncompatibleStore",
    "InvalidCursor",
    "InvalidKey",
    "InvalidMessage",
    "LimitExceeded",
    "MissingDriver",
    "NotStorable",
    "PluginError",
    "SessionBusy",
    "SessionDeleted",
    "SessionExists",
    "SessionHistoryError",
    "SessionNotFound",
    "StoreFull",
    "StoreReadOnly",
    "TurnClosed",
    "TurnIdReused",
    "TurnOvertaken",
    "Unavailable",
    "UnknownScheme",
]


class _BadValue(SessionHistoryError, ValueError):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class NotStorable(_BadValue):
    """A value that would not come back equal. Nothing was written.

    :ivar path: where it stands, e.g. ``"messages[2].content[0].text"``.
    :ivar reason: what is wrong with it; never the value itself.
    """


class InvalidMessage(_BadValue):
    """Not a message. Nothing was written.

    :ivar path: where it stands, e.g. ``"messages[2].role"``.
    :ivar reason: what is wrong with it; never the value itself.
    """


class _SessionError(SessionHistoryError):
    text = ""

    def __init__(self, key: SessionKey) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return self._says(self.text)

    def _says(self, text: str) -> str:
        return f"session {self.key.session_id!r} of user {self.key.user_id!r} {text}"


class SessionExists(_SessionError, ValueError):
    """A session with this id exists already; it was not touched."""

    text = "exists already"


class SessionNotFound(_SessionError, LookupError):
    """There is no such session, or it is another user's."""

    text = "does not exist"


class SessionDeleted(_SessionError, LookupError):
    """The session was deleted, and only ``create_session`` begins it anew. Nothing was written.

    :ivar traceless: nothing of it is left, not even that it was deleted: it expired, or the store lost it. A next turn
        begins it anew.
    """

    text = "was deleted; create_session begins it anew"

    def __init__(self, key: SessionKey, *, traceless: bool = False) -> None:
        super().__init__(key)
        self.traceless: bool = traceless

    def __str__(self) -> str:
        if self.traceless:
            return self._says("is gone without a trace: it expired, or the store lost it; the next turn begins it anew")
        return super().__str__()


class TurnIdReused(_SessionError, ValueError):
    """The turn id belongs to a turn with another input. Nothing was written."""

    text = "has a turn of this id with another input"


class SessionBusy(_SessionError, RuntimeError):
    """Another turn of this session is going on, and it is to be alone. Nothing was written."""

    text = "has a turn that is going on"


class TurnOvertaken(_SessionError, RuntimeError):
    """An exclusive turn gave no sign of life for too long, and another one began: what it said was not stored."""

    text = "was taken over by another turn, since this one gave no sign of life"


class TurnClosed(SessionHistoryError, RuntimeError):
    """Something was added to a turn that has ended."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error that names something unknown; ``""`` if nothing is like it."""
    close = " or ".join(map(repr, get_close_matches(name.lower(), known)))
    return close and f": did you mean {close}?"


class UnknownScheme(ConfigurationError, LookupError):
    """No installed plugin provides this URL scheme.

    :ivar scheme: the scheme that was asked for.
    :ivar installed: those that are there.
    """

    def __init__(self, scheme: str, installed: tuple[str, ...]) -> None:
        super().__init__(scheme, installed)
        self.scheme = scheme
        self.installed = installed

    def __str__(self) -> str:
        unknown = f"no provider for the URL scheme {self.scheme!r}"
        installed = f"Installed: {', '.join(self.installed) or 'none'}."
        if close := did_you_mean(self.scheme, self.installed):
            return f"{unknown}{close} {installed}"
        remedy = f"Install a package with an entry point {self.scheme!r} in the group 'session_history'."
        return f"{unknown}. {installed} {remedy}"


class MissingDriver(SessionHistoryError, ImportError):
    """The plugin is installed and the package that it drives is not. The message names the extra to install."""


class PluginError(SessionHistoryError, RuntimeError):
    """A plugin can not be loaded, or does not provide what its entry point promises."""
