"""What the keys of the store are called."""

from __future__ import annotations

from session_history.providers.redis.packing import digest
from session_history_hooks import SessionKey


class Keys:
    """Names of keys. What belongs to one user is in one slot of a cluster, which hashes what stands in the braces."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()

    def slot(self, user_id: str) -> bytes:
        """What the names of a user's keys begin with."""
        return b"%b:{%b}:" % (self._prefix, digest(user_id.encode()))

    def of_user(self, user_id: str) -> tuple[bytes, ...]:
        """Heads, index and graves."""
        slot = self.slot(user_id)
        return slot + b"heads", slot + b"index", slot + b"graves"

    def of_session(self, user_id: str, session_id: bytes) -> tuple[bytes, ...]:
        """Entries and ids."""
        name = self.slot(user_id) + digest(session_id)
        return name + b":entries", name + b":ids"

    def of_both(self, key: SessionKey) -> tuple[bytes, ...]:
        """All keys that a script of a session knows."""
        return self.of_user(key.user_id) + self.of_session(key.user_id, key.session_id.encode())
