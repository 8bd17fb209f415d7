"""Every error that a user may see. Each derives from :class:`SessionHistoryError` and from the builtin that fits."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

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
from session_history_hooks.spec import PROJECT, WRAPPERS

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
    "TranscriptEdited",
    "TurnClosed",
    "TurnIdReused",
    "TurnOvertaken",
    "Unavailable",
    "UnknownScheme",
    "UnknownWrapper",
]


class _BadValue(SessionHistoryError, ValueError):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class NotStorable(_BadValue):
    """The store would not return an equal value. Nothing was written.

    :ivar path: the place of the value, e.g. ``"messages[2].content[0].text"``.
    :ivar reason: the flaw; never the value itself.
    """


class InvalidMessage(_BadValue):
    """The value is not a message. Nothing was written.

    :ivar path: the place of the flaw, e.g. ``"messages[2].role"``.
    :ivar reason: the flaw; never the value itself.
    """


class _SessionError(SessionHistoryError):
    text = ""

    def __init__(self, key: SessionKey) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return self._describe(self.text)

    def _describe(self, text: str) -> str:
        return f"session {self.key.session_id!r} of user {self.key.user_id!r} {text}"


class SessionExists(_SessionError, ValueError):
    """A session with this id exists already. It was not changed."""

    text = "exists already"


class SessionNotFound(_SessionError, LookupError):
    """There is no such session, or it belongs to another user."""

    text = "does not exist"


class SessionDeleted(_SessionError, LookupError):
    """The session was deleted. Nothing was written. Only ``create_session`` re-creates the session.

    :ivar traceless: true if the store has no tombstone either: the session expired, or the store lost it. The next
        turn then re-creates the session.
    """

    text = "was deleted; create_session re-creates it"

    def __init__(self, key: SessionKey, *, traceless: bool = False) -> None:
        super().__init__(key)
        self.traceless: bool = traceless

    def __str__(self) -> str:
        if self.traceless:
            return self._describe(
                "is gone without a trace: it expired, or the store lost it; the next turn re-creates it"
            )
        return super().__str__()


class TurnIdReused(_SessionError, ValueError):
    """A turn with this id and another input exists. Nothing was written."""

    text = "has a turn with this id and another input"


class SessionBusy(_SessionError, RuntimeError):
    """Another turn holds the lease of this session. Nothing was written.

    :ivar own: that turn is one that the running task is in. It would wait for itself.
    """

    text = "is in use: another turn holds its lease"

    def __init__(self, key: SessionKey, *, own: bool = False) -> None:
        super().__init__(key)
        self.own: bool = own

    def __str__(self) -> str:
        if self.own:
            return self._describe(
                "is in use by an exclusive turn of this very task, for which another turn would wait for ever"
            )
        return super().__str__()


class TurnOvertaken(_SessionError, RuntimeError):
    """An exclusive turn sent no heartbeat for too long, so another turn took its lease. This turn was not stored."""

    text = "was taken over by another turn, because this turn sent no heartbeat"


class TranscriptEdited(SessionHistoryError, ValueError):
    """The input repeats messages that the session has, but not as the session has them. Nothing was written.

    :ivar path: the message of the input that differs, e.g. ``"input[2]"``.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} does not go on from the messages of the session that the input repeats; "
            "send what is new, or the whole transcript as it is"
        )


class TurnClosed(SessionHistoryError, RuntimeError):
    """A turn that has ended refuses what is added to it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name; ``""`` if no known name is similar."""
    close = " or ".join(map(repr, get_close_matches(name.lower(), known)))
    return close and f": did you mean {close}?"


class _UnknownPlugin(ConfigurationError, LookupError):
    kind: ClassVar[str]
    group: ClassVar[str]

    def __init__(self, name: str, installed: tuple[str, ...]) -> None:
        super().__init__(name, installed)
        self.name = name
        self.installed = installed

    def __str__(self) -> str:
        unknown = f"{self.kind} {self.name!r}"
        installed = f"Installed: {', '.join(self.installed) or 'none'}."
        if close := did_you_mean(self.name, self.installed):
            return f"{unknown}{close} {installed}"
        remedy = f"Install a package with an entry point {self.name!r} in the group {self.group!r}."
        return f"{unknown}. {installed} {remedy}"


class UnknownScheme(_UnknownPlugin):
    """No installed plugin provides this URL scheme.

    :ivar scheme: the scheme that was requested.
    :ivar installed: the schemes that are installed.
    """

    kind = "no provider for the URL scheme"
    group = PROJECT

    @property
    def scheme(self) -> str:
        return self.name


class UnknownWrapper(_UnknownPlugin):
    """No installed plugin provides a wrapper of this name.

    :ivar name: the name that was requested.
    :ivar installed: the wrappers that are installed.
    """

    kind = "no wrapper"
    group = WRAPPERS


class MissingDriver(SessionHistoryError, ImportError):
    """The plugin is installed, but a package that it needs is not. The message names the extra to install."""


class PluginError(SessionHistoryError, RuntimeError):
    """A plugin cannot be loaded, or does not provide what its entry point promises."""
