"""The bytes that stand for entry ids in the database."""

from __future__ import annotations

from session_history_hooks import Corrupt, LimitExceeded, SessionKey

ID_BYTES = 2048
"""The longest entry id, in UTF-8 bytes: an index of PostgreSQL takes about 2,700."""


def check_id(entry_id: str) -> None:
    """:raises LimitExceeded: the id is too long for an index."""
    size = len(encoded(entry_id))
    if size > ID_BYTES:
        raise LimitExceeded("entry id bytes", size, ID_BYTES)


def encoded(entry_id: str) -> bytes:
    return entry_id.encode("utf-8", "surrogatepass")  # exact for every str


def decoded(text: bytes, key: SessionKey) -> str:
    """Return an id or an origin. :raises Corrupt: it is not text, or missing."""
    try:
        return text.decode("utf-8", "surrogatepass")
    except (UnicodeDecodeError, AttributeError):
        raise Corrupt(f"{key} has an unreadable id or origin") from None
