"""Names of the keys in the store."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

from session_history_hooks import SessionKey


class Keys:
    """Names of keys. A cluster hashes what stands in the braces, so all keys of a user are in one slot.

    :param prefix: the first part of every name.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()

    def user_prefix(self, user_id: str) -> bytes:
        """Return the first part of the names of a user's keys."""
        return b"%b:{%b}:" % (self._prefix, _digest(user_id.encode()))

    def of_user(self, user_id: str) -> tuple[bytes, ...]:
        """Return the keys ``heads``, ``index`` and ``tombstones``."""
        prefix = self.user_prefix(user_id)
        return prefix + b"heads", prefix + b"index", prefix + b"tombstones"

    def of_session(self, user_id: str, session_id: bytes) -> tuple[bytes, ...]:
        """Return the keys ``entries`` and ``ids``."""
        name = self.user_prefix(user_id) + _digest(session_id)
        return name + b":entries", name + b":ids"

    def for_script(self, key: SessionKey) -> tuple[bytes, ...]:
        """Return the keys that a script of one session gets: those of its user, then its own."""
        return self.of_user(key.user_id) + self.of_session(key.user_id, key.session_id.encode())


@lru_cache(maxsize=1024)
def _digest(name: bytes) -> bytes:
    """Return 192 bits of a hash. Nobody can find two names with the same digest."""
    return base64.urlsafe_b64encode(hashlib.blake2b(name, digest_size=24).digest())
