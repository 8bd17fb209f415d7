"""The cursor of a session: the place at which a window begins, for a read of what lies before."""

from __future__ import annotations

import re
from typing import NamedTuple

from session_history.errors import InvalidCursor
from session_history.records.record import MessageRef
from session_history_hooks import Head

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})\.([!-~]{1,64})")


class Cursor(NamedTuple):
    """A message, and the log that it was read in.

    :ivar start: the message at which the window begins.
    :ivar generation: that of the session.
    :ivar tail: seq of the newest entry when the window was read.
    :ivar origin: the origin of that entry: a log without it is another one.
    """

    start: MessageRef
    generation: int
    tail: int
    origin: str

    @classmethod
    def of(cls, start: MessageRef, head: Head) -> Cursor:
        return cls(start, head.tail.generation, head.tail.seq, head.tail_origin)

    @classmethod
    def decode(cls, cursor: str) -> Cursor:
        """Read a cursor. :raises InvalidCursor: :meth:`encode` did not make it."""
        match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        if match is None:
            raise InvalidCursor("the cursor was not made by get_session: pass session.earlier as before=")
        generation, seq, offset, tail = map(int, match.groups()[:4])
        return cls(MessageRef(seq, offset), generation, tail, match[5])

    def encode(self) -> str:
        return f"{self.generation}.{self.start.seq}.{self.start.offset}.{self.tail}.{self.origin}"
