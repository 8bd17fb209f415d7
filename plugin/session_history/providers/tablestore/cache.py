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
        self._states: OrderedDict[SessionKey, SessionState] = OrderedDict()
        self._bytes = 0

    def get(self, key: SessionKey) -> SessionState | None:
        if key in self._states:
            self._states.move_to_end(key)
        return self._states.get(key)

    def put(self, key: SessionKey, state: SessionState) -> None:
        """Store a state, unless a newer one is stored. A slow answer may arrive after a later one.

        A state with staged entries is not stored, because each use of it would need to know if they are still there.
        """
        if state.staged or (key in self._states and self._states[key].append_at > state.append_at):
            return
        self._remove(key)
        self._states[key] = state
        self._bytes += _size(state)
        while len(self._states) > MAX_SESSIONS or self._bytes > MAX_BYTES:
            _, oldest = self._states.popitem(last=False)
            self._bytes -= _size(oldest)

    def _remove(self, key: SessionKey) -> None:
        state = self._states.pop(key, None)
        if state is not None:
            self._bytes -= _size(state)


def _size(state: SessionState) -> int:
    if state.row is None:
        return _STATE_BYTES
    snapshot, ids = state.row.head.snapshot, state.row.ids
    return _STATE_BYTES + len(ids.digests) + len(ids.counts) + (len(snapshot.summary) if snapshot else 0)
