"""A session as users hold it: one conversation, or a window of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from typing_extensions import TypeVar

from session_history.records.messages import Message
from session_history_hooks import Head, SessionKey

M = TypeVar("M", default=Message)


class SessionSource(NamedTuple):
    """The place that a session was read from.

    :ivar log: the name of the log. The head says nothing of another one.
    :ivar key: the session of the head: the object may have been copied for another one.
    :ivar head: where the log stood; ``None`` if that is not known.
    :ivar native: messages are any JSON objects.
    """

    log: str
    key: SessionKey
    head: Head | None
    native: bool


class Session(BaseModel, Generic[M]):
    """A conversation, or the window of it that was asked for.

    :ivar messages: empty in a listing.
    :ivar turns: how many turns ever began in the whole session.
    :ivar created_at: when it came into being, by its creator's clock; ``None`` before its first append.
    :ivar updated_at: when anything in it last changed, by the store's clock; a new title counts.
    :ivar earlier: the cursor for ``get_session(before=…)``; ``None`` if nothing lies before these messages.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    id: str
    user_id: str
    messages: list[M] = Field(default_factory=list)
    title: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    turns: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    earlier: str | None = None

    _source: SessionSource | None = PrivateAttr(default=None)

    @property
    def source(self) -> SessionSource | None:
        """The place that a service read this session from; ``None`` for a session of the caller's own making."""
        return self._source

    def bind(self, source: SessionSource) -> None:
        """Note the place that this session was read from. For services only."""
        self._source = source

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        yield "id", self.id
        yield "user_id", self.user_id
        yield "turns", self.turns
        yield "messages", len(self.messages)

    def __repr_name__(self) -> str:
        return "Session"


AnySession = Session[Any]
"""The class of the sessions that a service makes. A pickled one looks for it here."""


class SessionList(list[Session]):
    """Sessions of one user, newest activity first.

    :ivar next_cursor: asks ``list_sessions`` for what follows; ``None`` at the end.
    :ivar unreadable: ids of sessions that belong here and cannot be read: they are damaged, or of a newer version. Some
        of them are in the list, without title and metadata. Each can be deleted by its id.
    :ivar unnamed: how many more sessions belong here of which even the id is damaged.
    """

    next_cursor: str | None = None
    unreadable: tuple[str, ...] = ()
    unnamed: int = 0


def time_of(us: int | None) -> datetime | None:
    """Return a time, given in microseconds since the epoch."""
    return None if not us else datetime.fromtimestamp(us / 1_000_000, UTC)
