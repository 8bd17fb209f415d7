"""Turns inside turns: an exclusive turn must not wait for the one that its own task is in."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from session_history.log.session_log import SessionLog
from session_history_hooks import SessionKey

if TYPE_CHECKING:
    from session_history.turns.writer import Writer

_entered: ContextVar[tuple[Writer, ...]] = ContextVar("session_history_exclusive_turns", default=())
"""Writers of exclusive turns that were opened in this context, or in the one that it was copied from."""


def enter(writer: Writer) -> None:
    """Note that the running task is in the exclusive turn of a writer. The note is void once the turn has ended."""
    _entered.set((*(each for each in _entered.get() if each.is_exclusive and each is not writer), writer))


def own_writer(log: SessionLog, key: SessionKey) -> Writer | None:
    """Return the writer of the exclusive turn of a session that the running task is in: it must not wait for it."""
    for writer in _entered.get():
        if writer.holds(log, key):
            return writer
    return None
