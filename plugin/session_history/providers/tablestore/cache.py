"""The states of sessions that this process used lately. With a cached state, an append takes one request."""

from __future__ import annotations

from collections import OrderedDict

from session_history.providers.tablestore.state import SessionState
from session_history_hooks import SessionKey

MAX_SESSIONS = 10_000
MAX_BYTES = 16 * 2**20
"""A session takes some 3 KB, with its summary."""

_STATE_BYTES = 512
"""An estimate of a state without digests and summary."""


class StateCache:
    """States by session. The least recently used ones are dropped first."""

    def __init__(self) -> None:
        self._states: OrderedDict[SessionKey, tuple[int, SessionState]] = OrderedDict()
        self._bytes = 0
        self._time = 0

    def now(self) -> int:
        """Return a number that is larger than all before."""
        self._time += 1
        return self._time

    def get(self, key: SessionKey) -> SessionState | None:
        if key not in self._states:
            return None
        self._states.move_to_end(key)
        return self._states[key][1]

    def put(self, key: SessionKey, state: SessionState, read_at: int | None = None) -> None:
        """Store a state, unless a later one is stored: a slow answer may arrive after the answer to a later request.

        A state with staged entries is not stored, so that the next append reads the session and removes them.

        :param read_at: the time by :meth:`now` before the state was read; ``None`` if this process wrote it just now.
        """
        time = self.now() if read_at is None else read_at
        if key in self._states and self._states[key][0] > time:
            return
        self._remove(key)
        if state.staged:
            return
        self._states[key] = time, state
        self._bytes += _size(state)
        while len(self._states) > MAX_SESSIONS or self._bytes > MAX_BYTES:
            _, (_, oldest) = self._states.popitem(last=False)
            self._bytes -= _size(oldest)

    def _remove(self, key: SessionKey) -> None:
        if key in self._states:
            _, state = self._states.pop(key)
            self._bytes -= _size(state)


def _size(state: SessionState) -> int:
    if state.row is None:
        return _STATE_BYTES
    snapshot, ids = state.row.head.snapshot, state.row.ids
    return _STATE_BYTES + len(ids.digests) + len(ids.counts) + (len(snapshot.summary) if snapshot else 0)
