"""Keys, heads, tombstones and entries as bytes."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

from session_history_hooks import Corrupt, Entry, Head, IncompatibleStore, Position, SessionKey, Snapshot

FORMAT = 1
"""The first byte of a head and of a grave. A store of another format is left as it is."""

_HEAD = struct.Struct(">B7dB4I")
"""Format; generation, seq, heartbeat, rewrites, active_us, expires_us (0 = never), seq of the snapshot (0 = none); whether it began
after others, all of which expired; the sizes of tail id, snapshot id, mark of the last rewrite and user id, which follow;
then summary.
"""

_GRAVE = struct.Struct(">BBdd")
"""Format; 1 = it was deleted, 2 = one before it was, 0 = none was; generation, active_us; the marks of the last
deletes follow.
"""

_SIZE = struct.Struct(">I")
"""The size of an entry's id, which follows, and then the payload."""

_EXACT = 2**53
"""Doubles hold whole numbers exactly up to here."""


@lru_cache(maxsize=1024)
def digest(name: bytes) -> bytes:
    """192 bits: nobody finds two names with the same one, also by trying."""
    return base64.urlsafe_b64encode(hashlib.blake2b(name, digest_size=24).digest())


def packed_entry(entry: Entry) -> bytes:
    name = entry.id.encode()
    return _SIZE.pack(len(name)) + name + entry.payload


def unpacked_entries(raws: Sequence[bytes], key: SessionKey) -> tuple[Entry, ...]:
    """:raises Corrupt: one of them is no entry."""
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


def unpacked_head(raw: bytes, key: SessionKey) -> Head | None:
    """The head of a session that lives, or its tombstone; of no bytes, ``None``."""
    if not raw:
        return None
    insist_on_format(raw)
    try:
        return _tombstone(raw, key) if len(raw) < _HEAD.size else _living(raw, key)
    except (struct.error, ValueError):
        raise Corrupt(f"the head of {key} is unreadable") from None


def living_head(raw: bytes, user_id: str, session_id: bytes) -> Head:
    """The head of a session in a listing."""
    try:
        key = SessionKey(user_id, session_id.decode())
    except ValueError:
        raise Corrupt("a head belongs to what is no session") from None
    head = unpacked_head(raw, key)
    if head is None or head.deleted:
        raise Corrupt(f"the head of {key} is unreadable")
    return head


def insist_on_format(raw: bytes) -> None:
    """:raises IncompatibleStore: a newer version of this package wrote it."""
    if raw and raw[0] > FORMAT:
        raise IncompatibleStore(f"the store has format {raw[0]}; this version reads format {FORMAT}")


def _living(raw: bytes, key: SessionKey) -> Head:
    _, generation, seq, heartbeat, rewrites, active_us, _, snapshot_seq, _, *sizes = _HEAD.unpack_from(raw)
    tail_id, snapshot_id, _, user_id, summary = _cut(raw[_HEAD.size :], sizes)
    if user_id != key.user_id.encode():
        raise Corrupt(f"the head of {key} is another user's")
    return Head(
        key,
        Position(_whole(generation), _whole(seq)),
        tail_id.decode(),
        deleted=False,
        heartbeat=_whole(heartbeat),
        rewrites=_whole(rewrites),
        active_us=_whole(active_us),
        snapshot=Snapshot(_whole(snapshot_seq), snapshot_id.decode(), summary) if snapshot_seq else None,
    )


def _tombstone(raw: bytes, key: SessionKey) -> Head:
    _, _, generation, active_us = _GRAVE.unpack_from(raw)
    tail = Position(_whole(generation), 0)
    return Head(key, tail, "", deleted=True, heartbeat=0, rewrites=0, active_us=_whole(active_us), snapshot=None)


def _cut(raw: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Pieces of these sizes, and what is left."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(raw[start : start + size])
        start += size
    if len(raw) < start:
        raise ValueError("cut off")
    return [*pieces, raw[start:]]


def _whole(number: float) -> int:
    if not 0 <= number <= _EXACT or int(number) != number:
        raise ValueError("not a whole number")
    return int(number)
