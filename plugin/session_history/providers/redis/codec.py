"""Heads, tombstones and entries as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from session_history_hooks import Corrupt, Entry, Head, IncompatibleStore, Position, SessionKey, Snapshot

FORMAT = 1
"""The first byte of a head and of a tombstone. A store of another format is not changed."""

_HEAD = struct.Struct(">B7dB4I")
"""Fields of a head.

1. The format.
2. generation, seq, heartbeat, rewrites, active_us, expires_us (0 = never), the snapshot's seq (0 = no snapshot).
3. 1 if the session follows expired ones, of which none was deleted; else 0.
4. The sizes of four texts, which come next: tail id, snapshot id, id of the call that rewrote last, user id.

The summary stands last.
"""

_TOMBSTONE = struct.Struct(">BBdd")
"""Fields of a tombstone.

1. The format.
2. 1 if the session was deleted; 2 if it was not, but one of the same id before it was; 0 if none was.
3. generation, active_us.

The ids of the calls that deleted last stand last.
"""

_SIZE = struct.Struct(">I")
"""The size of an entry's id. The id comes next, and then the payload."""

_MAX_EXACT = 2**53
"""Doubles hold whole numbers exactly up to here."""


def encode_entry(entry: Entry) -> bytes:
    name = entry.id.encode()
    return _SIZE.pack(len(name)) + name + entry.payload


def decode_entries(raws: Sequence[bytes], key: SessionKey) -> tuple[Entry, ...]:
    """:raises Corrupt: one of them is not an entry."""
    entries = []
    size_at = _SIZE.unpack_from
    try:
        for raw in raws:
            end = 4 + size_at(raw)[0]
            entries.append(Entry(raw[4:end].decode(), raw[end:]))
            if end > len(raw):
                raise Corrupt(f"an entry of {key} is cut off")
    except (struct.error, UnicodeDecodeError, TypeError):
        raise Corrupt(f"an entry of {key} is unreadable") from None
    return tuple(entries)


def decode_head(raw: bytes, key: SessionKey) -> Head | None:
    """Return the head of a session, also of a deleted one; of no bytes, ``None``."""
    if not raw:
        return None
    require_known_format(raw)
    try:
        return _decode_tombstone(raw, key) if len(raw) < _HEAD.size else _decode_live_head(raw, key)
    except (struct.error, ValueError):
        raise Corrupt(f"the head of {key} is unreadable") from None


def decode_listed_head(raw: bytes, user_id: str, session_id: bytes) -> Head:
    """Return the head of a session in a listing."""
    try:
        key = SessionKey(user_id, session_id.decode())
    except ValueError:
        raise Corrupt("a head has a name that is not a session id") from None
    head = decode_head(raw, key)
    if head is None or head.deleted:
        raise Corrupt(f"the head of {key} is unreadable")
    return head


def require_known_format(raw: bytes) -> None:
    """:raises IncompatibleStore: a newer version of this package wrote the bytes."""
    if raw and raw[0] > FORMAT:
        raise IncompatibleStore(f"the store has format {raw[0]}; this version reads format {FORMAT}")


def _decode_live_head(raw: bytes, key: SessionKey) -> Head:
    _, generation, seq, heartbeat, rewrites, active_us, _, snapshot_seq, _, *sizes = _HEAD.unpack_from(raw)
    tail_id, snapshot_id, _, user_id, summary = _split(raw[_HEAD.size :], sizes)
    if user_id != key.user_id.encode():
        raise Corrupt(f"the head of {key} belongs to another user")
    return Head(
        key,
        Position(_integer(generation), _integer(seq)),
        tail_id.decode(),
        deleted=False,
        heartbeat=_integer(heartbeat),
        rewrites=_integer(rewrites),
        active_us=_integer(active_us),
        snapshot=Snapshot(_integer(snapshot_seq), snapshot_id.decode(), summary) if snapshot_seq else None,
    )


def _decode_tombstone(raw: bytes, key: SessionKey) -> Head:
    _, _, generation, active_us = _TOMBSTONE.unpack_from(raw)
    tail = Position(_integer(generation), 0)
    return Head(key, tail, "", deleted=True, heartbeat=0, rewrites=0, active_us=_integer(active_us), snapshot=None)


def _split(raw: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Return pieces of these sizes, and the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(raw[start : start + size])
        start += size
    if len(raw) < start:
        raise ValueError("cut off")
    return [*pieces, raw[start:]]


def _integer(number: float) -> int:
    if not 0 <= number <= _MAX_EXACT or int(number) != number:
        raise ValueError("not a whole number")
    return int(number)
