"""The identity of a session."""

from __future__ import annotations

from dataclasses import dataclass

from session_history_hooks.errors import InvalidKey

KEY_BYTES = 512
"""The longest key, in UTF-8 bytes: two of them fit into the 1 KB of a primary key column of Tablestore."""


def check_key(field: str, value: object) -> str:
    """Return ``value`` if it is a valid key.

    A key is any text of 1 to 512 UTF-8 bytes that is not blank. No character has a special
    meaning and nothing is normalised: NFC and NFD spellings are two keys.

    :raises InvalidKey: ``value`` is not a ``str``, is blank or too long, or contains NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidKey(field, f"must be a str, not {type(value).__name__}")
    value = str.__str__(value)  # A subclass of str may override __str__; the key is the text itself.
    if not value.strip():
        raise InvalidKey(field, "must not be blank")
    if "\0" in value:
        raise InvalidKey(field, "must not contain NUL")
    size = _utf8_bytes(field, value)
    if size > KEY_BYTES:
        raise InvalidKey(field, f"must have at most {KEY_BYTES} UTF-8 bytes, not {size}")
    return value


def _utf8_bytes(field: str, value: str) -> int:
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        raise InvalidKey(field, "must not contain a lone surrogate") from None


@dataclass(frozen=True, slots=True, order=True)
class SessionKey:
    """The identity of a session: always the pair, never one joined string.

    :raises InvalidKey: see :func:`check_key`.
    """

    user_id: str
    session_id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_id", check_key("user_id", self.user_id))
        object.__setattr__(self, "session_id", check_key("session_id", self.session_id))
