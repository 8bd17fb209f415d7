"""Pages of a user's sessions."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from session_history_hooks.errors import InvalidCursor
from session_history_hooks.keys import check_key
from session_history_hooks.log import Head

_END_OF_TIME = 2**63


@dataclass(frozen=True, slots=True)
class Page:
    """Sessions of one user, newest activity first.

    :ivar cursor: asks for the next page; ``None`` if there is none.
    """

    heads: tuple[Head, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ListingCursor:
    """The last session of a page: the next one holds what sorts strictly behind it.

    The order is ``(-active_us, session_id)``. The user is never part of a cursor.
    """

    active_us: int
    session_id: str

    @classmethod
    def behind(cls, head: Head) -> ListingCursor:
        return cls(head.active_us, head.key.session_id)

    def encode(self) -> str:
        text = json.dumps([self.active_us, self.session_id])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, cursor: str) -> ListingCursor:
        """:raises InvalidCursor: not a cursor of :meth:`encode`."""
        try:
            active_us, session_id = json.loads(base64.b64decode(cursor, b"-_", validate=True))
            check_key("session_id", session_id)
        except (ValueError, TypeError, RecursionError):
            raise InvalidCursor("not a cursor of a listing") from None
        if type(active_us) is not int or not 0 <= active_us < _END_OF_TIME:
            raise InvalidCursor("not a cursor of a listing")
        return cls(active_us, session_id)
