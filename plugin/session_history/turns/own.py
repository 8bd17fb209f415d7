"""The exclusive turns that the running task is in. It must not wait for them."""

from __future__ import annotations

from contextvars import ContextVar

from session_history.log.session_log import SessionLog
from session_history.turns.writer import Writer
from session_history_hooks import SessionKey

_entered: ContextVar[tuple[Writer, ...]] = ContextVar("session_history_exclusive_turns", default=())
"""Writers of exclusive turns that were opened in this context, or in the one that it was copied from."""


def enter(writer: Writer) -> None:
    """Note that the running task is in the turn of a writer. The note is void as soon as the turn has ended."""
    _entered.set((*(each for each in _entered.get() if each.is_exclusive), writer))


def own_writer(log: SessionLog, key: SessionKey) -> Writer | None:
    """Return the writer of the exclusive turn of a session that the running task is in."""
    return next((writer for writer in _entered.get() if writer.holds(log, key)), None)
