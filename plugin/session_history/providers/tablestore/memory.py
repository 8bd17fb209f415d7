"""What this process knows of sessions that it saw lately, so that an append behind them is one request."""

from __future__ import annotations

from collections import OrderedDict

from session_history.providers.tablestore.known import Known
from session_history_hooks import SessionKey

SESSIONS = 10_000
BYTES = 16 * 2**20
"""The most that is remembered; a session takes some 3 KB, with its summary."""


class Memory:
    """Sessions by key; those that were not used for longest go first."""

    def __init__(self) -> None:
        self._known: OrderedDict[SessionKey, Known] = OrderedDict()
        self._bytes = 0

    def get(self, key: SessionKey) -> Known | None:
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def keep(self, key: SessionKey, known: Known) -> None:
        """What is older than what was known is not kept: a slow answer may come behind a later one."""
        if key in self._known and self._known[key].place > known.place:
            return
        self._forget(key)
        self._known[key] = known
        self._bytes += _size(known)
        while len(self._known) > SESSIONS or self._bytes > BYTES:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= _size(oldest)

    def _forget(self, key: SessionKey) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._bytes -= _size(known)


def _size(known: Known) -> int:
    snapshot = known.head.snapshot if known.head else None
    return 512 + len(known.recent) + (len(snapshot.summary) if snapshot else 0)
