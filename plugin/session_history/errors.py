"""Every error that a user may see. Each derives from :class:`SessionHistoryError` and from the builtin that fits."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

from session_history_hooks import (
    BackupExists,
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
    "AgentBusy",
    "BackupExists",
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
    "Unsupported",
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

    text = "exists already; choose another id, or call get_session"


class SessionNotFound(_SessionError, LookupError):
    """There is no such session, or it belongs to another user."""

    text = "does not exist; create_session, or a first turn, creates it"


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
                "is not in the store any more: it expired, or the store lost it; the next turn re-creates it"
            )
        return super().__str__()


class TurnIdReused(_SessionError, ValueError):
    """A turn with this id and another input exists. Nothing was written."""

    text = "has a turn with this turn_id and another input; give each new input a turn_id of its own"


class SessionBusy(_SessionError, RuntimeError):
    """Another turn holds the lease of this session. Nothing was written.

    :ivar own: that turn is one that the running task is in. It would wait for itself.
    """

    text = "is in use: another turn holds its lease; try again when that turn has ended"

    def __init__(self, key: SessionKey, *, own: bool = False) -> None:
        super().__init__(key)
        self.own: bool = own

    def __str__(self) -> str:
        if self.own:
            return self._describe(
                "is in use by an exclusive turn of this task: a turn inside it would wait for ever; use that turn"
            )
        return super().__str__()


class AgentBusy(SessionBusy):
    """The agent object is replying in another session. Nothing was written. Each session needs an agent object."""

    text = "cannot have a turn now: the agent is replying in another session; give each session an agent object"


class TurnOvertaken(_SessionError, RuntimeError):
    """An exclusive turn sent no heartbeat for too long, so another turn took its lease.

    This turn was not stored; or as interrupted, if a tool may have run in it.
    """

    text = "was taken over by another turn, because this turn sent no heartbeat for too long"


class TranscriptEdited(SessionHistoryError, ValueError):
    """The input repeats messages that the session has, but not as the session has them. Nothing was written.

    :ivar path: the message of the input that differs, e.g. ``"input[2]"``.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} repeats a message of the session, but the session goes on in another way there: "
            "a retry needs the turn_id of the first attempt, an edited transcript a new session"
        )


class Unsupported(SessionHistoryError, NotImplementedError):
    """The store is of a kind that cannot do what was asked for. The error names another way."""


class TurnClosed(SessionHistoryError, RuntimeError):
    """A turn that has ended refuses what is added to it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name; ``""`` if no known name is similar."""
    return _suggestion(get_close_matches(name.lower(), known))


def _suggestion(names: Iterable[str]) -> str:
    close = " or ".join(map(repr, names))
    return close and f": did you mean {close}?"


class _UnknownPlugin(ConfigurationError, LookupError):
    kind: ClassVar[str]
    group: ClassVar[str]

    def __init__(self, name: str, installed: tuple[str, ...], place: str = "") -> None:
        super().__init__(name, installed, place)
        self.name = name
        self.installed = installed
        self.place = place

    def __str__(self) -> str:
        unknown = f"{self.kind} {self.name!r}" + (f" in {self.place}" if self.place else "")
        installed = f"Installed: {', '.join(self.installed) or 'none'}."
        if close := self._suggest():
            return f"{unknown}{close} {installed}"
        remedy = f"Install a package with an entry point {self.name!r} in the group {self.group!r}."
        return f"{unknown}. {installed} {remedy}"

    def _suggest(self) -> str:
        return did_you_mean(self.name, self.installed)


OTHER_NAMES = {
    "inmemory": "memory",
    "mem": "memory",
    "ots": "tablestore",
    "pg": "postgresql",
    "pgsql": "postgresql",
    "postgres": "postgresql",
    "psql": "postgresql",
    "sqlite3": "sqlite",
    "unix": "redis",
}
"""Schemes that other libraries use, each with ours."""


class UnknownScheme(_UnknownPlugin):
    """No installed plugin provides this URL scheme.

    :ivar scheme: the scheme that was requested.
    :ivar installed: the schemes that are installed.
    :ivar place: the place where the URL was written, e.g. ``"SESSION_HISTORY_URL"``.
    """

    kind = "no provider for the URL scheme"
    group = PROJECT

    @property
    def scheme(self) -> str:
        return self.name

    def _suggest(self) -> str:
        """Suggest similar schemes, or the database of a scheme in the style of SQLAlchemy: ``sqlite+aiosqlite``."""
        database = self.name.partition("+")[0]
        names = (OTHER_NAMES.get(self.name), database, OTHER_NAMES.get(database))
        same = [name for name in names if name in self.installed]
        # A misspelt scheme with a plus, such as redis+clustr, is nearer to one that has a plus.
        near = get_close_matches(self.name, self.installed, cutoff=0.8)
        return (
            _suggestion(near or same[:1])
            or did_you_mean(self.name, self.installed)
            or did_you_mean(database, self.installed)
        )


class UnknownWrapper(_UnknownPlugin):
    """No installed plugin provides a wrapper of this name.

    :ivar name: the name that was requested.
    :ivar installed: the wrappers that are installed.
    :ivar place: the place where the name was written, e.g. ``"app.toml, [session-history]"``.
    """

    kind = "no wrapper"
    group = WRAPPERS


class MissingDriver(SessionHistoryError, ImportError):
    """The plugin is installed, but a package that it needs is not. The message names the extra to install."""


class PluginError(SessionHistoryError, RuntimeError):
    """A plugin cannot be loaded, or does not provide what its entry point promises."""


def _adopt_contract_errors() -> None:
    """Show the errors of the contract in tracebacks and pickles under the one name that users import.

    A process that uses only ``session_history_hooks`` shows them under the names of their own modules.
    """
    for name in __all__:
        globals()[name].__module__ = __name__


_adopt_contract_errors()
