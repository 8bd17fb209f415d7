"""Pages of a user's sessions."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from session_history_hooks.errors import InvalidCursor
from session_history_hooks.log import Head, SessionKey, check_key

_END_OF_TIME = 2**63


@dataclass(frozen=True, slots=True)
class Page:
    """Sessions of one user, newest activity first.

    :ivar cursor: requests the next page; ``None`` on the last page.
    :ivar unreadable: sessions that belong on this page, and whose heads are damaged or of a newer version.
    :ivar unnamed: how many more rows belong on this page of which even the session id is damaged.
    """

    heads: tuple[Head, ...]
    cursor: str | None = None
    unreadable: tuple[SessionKey, ...] = ()
    unnamed: int = 0


@dataclass(frozen=True, slots=True)
class ListingCursor:
    """The last session of a page. The next page holds the sessions that sort strictly after it.

    The sort key is ``(-active_us, session_id)``. A cursor never contains the user.
    """

    active_us: int
    session_id: str

    @classmethod
    def behind(cls, head: Head) -> ListingCursor:
        """Return the cursor of the page that begins after ``head``."""
        return cls(head.active_us, head.key.session_id)

    def encode(self) -> str:
        text = json.dumps([self.active_us, self.session_id])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, cursor: str) -> ListingCursor:
        """Return the cursor that :meth:`encode` turned into ``cursor``.

        :raises InvalidCursor: ``cursor`` was not made by :meth:`encode`.
        """
        try:
            active_us, session_id = json.loads(base64.b64decode(cursor, b"-_", validate=True))
            check_key("session_id", session_id)
        except (ValueError, TypeError, RecursionError):
            raise InvalidCursor("the cursor was not made by this listing") from None
        if type(active_us) is not int or not 0 <= active_us < _END_OF_TIME:
            raise InvalidCursor("the cursor was not made by this listing")
        return cls(active_us, session_id)
