"""Names of the keys in the store."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

from session_history_hooks import SessionKey


class Keys:
    """Names of keys. A cluster hashes what stands in the braces, so all keys of a user are in one slot.

    :param prefix: the first part of every name.
    :ivar store: the key of the store's identity.
    :ivar tombstones_pattern: a pattern, as ``SCAN`` takes it, of the keys ``tombstones`` of all users.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self.store: bytes = self._prefix + b":store"
        self.tombstones_pattern: bytes = re.sub(rb"[][*?^\\]", rb"\\\g<0>", self._prefix) + b":{*}:tombstones"
        self._tombstones = re.compile(re.escape(self._prefix) + rb":\{([\w-]{32})}:tombstones", re.ASCII)

    def user_prefix(self, user_id: str) -> bytes:
        """Return the first part of the names of a user's keys."""
        return self._user_prefix(_digest(user_id.encode()))

    def of_user(self, user_id: str) -> tuple[bytes, ...]:
        """Return the keys ``heads``, ``index`` and ``tombstones``."""
        return _user_keys(self.user_prefix(user_id))

    def of_digest(self, digest: bytes) -> tuple[bytes, ...]:
        """Return the same keys of the user whose id has this digest."""
        return _user_keys(self._user_prefix(digest))

    def user_digests(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the digests of the users whose keys ``tombstones`` are among these names."""
        return [found[1] for found in map(self._tombstones.fullmatch, names) if found]

    def of_session(self, user_id: str, session_id: bytes) -> tuple[bytes, ...]:
        """Return the keys ``entries`` and ``ids``."""
        name = self.user_prefix(user_id) + _digest(session_id)
        return name + b":entries", name + b":ids"

    def for_script(self, key: SessionKey) -> tuple[bytes, ...]:
        """Return the keys that a script of one session gets: those of its user, then its own."""
        return self.of_user(key.user_id) + self.of_session(key.user_id, key.session_id.encode())

    def pieces(self, key: SessionKey, seq: int) -> bytes:
        """Return the key with the payload of a large entry."""
        return b"%b:pieces:%d" % (self._session_prefix(key), seq)

    def staged(self, key: SessionKey, upload_id: str) -> bytes:
        """Return the key with a large payload that no entry has yet."""
        return b"%b:staged:%b" % (self._session_prefix(key), upload_id.encode())

    def _user_prefix(self, digest: bytes) -> bytes:
        return b"%b:{%b}:" % (self._prefix, digest)

    def _session_prefix(self, key: SessionKey) -> bytes:
        return self.user_prefix(key.user_id) + _digest(key.session_id.encode())


def _user_keys(prefix: bytes) -> tuple[bytes, ...]:
    return prefix + b"heads", prefix + b"index", prefix + b"tombstones"


@lru_cache(maxsize=1024)
def _digest(name: bytes) -> bytes:
    """Return 192 bits of a hash. Nobody can find two names with the same digest."""
    return base64.urlsafe_b64encode(hashlib.blake2b(name, digest_size=24).digest())
