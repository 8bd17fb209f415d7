"""Heads, tombstones and entries as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from session_history_hooks import Corrupt, Entry, Head, IncompatibleStore, Position, SessionKey, Snapshot
from session_history_hooks.stored import checked_head

FORMAT = 1
"""The first byte of a head and of a tombstone. A store of another format is not changed."""

_HEAD = struct.Struct(">B8dB3B")
"""Fields of a head.

1. The format.
2. generation, seq, heartbeat, active_us, changed_us, expires_us (0 = never), number of remembered ids, the snapshot's
   seq (0 = no snapshot).
3. 1 if the session follows expired ones, of which none was deleted; else 0.
4. The sizes of three texts, which come next: tail origin, snapshot origin, rewrite id.

The summary stands last.
"""

_TOMBSTONE = struct.Struct(">BBddd")
"""Fields of a tombstone.

1. The format.
2. 1 if the session was deleted; 2 if it was not, but one of the same id before it was; 0 if none was.
3. generation, active_us, changed_us.

The ids of the calls that deleted last stand last.
"""

_DELETED = 1

_ENTRY = struct.Struct(">BBI")
"""Flags, and the sizes of origin and id. Id, origin, keys and payload come next."""

_BOOKKEEPING, _WITH_KEYS, _IN_PIECES = 1, 2, 4
"""Flags of an entry. With keys, their number comes as a byte, and then each with its size. In pieces, a stub stands in
place of the payload.
"""

_ALL_FLAGS = _BOOKKEEPING | _WITH_KEYS | _IN_PIECES

_KEY_SIZE = struct.Struct(">H")

_STUB = struct.Struct(">IH")
"""Size of the payload and number of its pieces. The id of the upload, of 16 characters, comes next."""

_MAX_EXACT = 2**53
"""Doubles hold whole numbers exactly up to here."""


class _NoNumberError(Exception):
    """A number is not whole or out of range, or the bytes are fewer than their sizes say."""


class Stub(NamedTuple):
    """The element of the list of entries for a payload that stands in pieces.

    :ivar upload_id: part of the names of the pieces, so that they are never taken for those of another upload.
    """

    size: int
    pieces: int
    upload_id: str

    @property
    def piece_size(self) -> int:
        """The size of a piece on average."""
        return self.size // self.pieces

    def encode(self) -> bytes:
        return _STUB.pack(self.size, self.pieces) + self.upload_id.encode()


def encode_entry(entry: Entry, stub: Stub | None = None) -> bytes:
    flags = _BOOKKEEPING if entry.bookkeeping else 0
    name, origin, keys, payload = entry.id.encode(), entry.origin.encode(), b"", entry.payload
    if entry.keys:
        flags, keys = flags | _WITH_KEYS, _encode_keys(entry.keys)
    if stub:
        flags, payload = flags | _IN_PIECES, stub.encode()
    return _ENTRY.pack(flags, len(origin), len(name)) + name + origin + keys + payload


def _encode_keys(keys: Sequence[str]) -> bytes:
    raws = [key.encode() for key in keys]
    return bytes([len(raws)]) + b"".join(_KEY_SIZE.pack(len(raw)) + raw for raw in raws)


def decode_entries(raws: Sequence[bytes], first: int, key: SessionKey) -> tuple[list[Entry], dict[int, Stub]]:
    """Return entries, and by seq the stubs of those in pieces, whose payload is empty.

    :param first: seq of the first of them.
    :raises Corrupt: one of them is not an entry.
    """
    entries: list[Entry] = []
    stubs: dict[int, Stub] = {}
    fields = _ENTRY.unpack_from
    is_known = True
    try:
        for raw in raws:
            flags, origin_size, name_size = fields(raw)
            origin_at = 6 + name_size
            end = origin_at + origin_size
            name, origin = raw[6:origin_at].decode(), raw[origin_at:end].decode()
            if flags:
                is_known &= flags <= _ALL_FLAGS
                keys, end = _decode_keys(raw, end) if flags & _WITH_KEYS else ((), end)
                payload = raw[end:]
                if flags & _IN_PIECES:
                    stubs[first + len(entries)], payload = _decode_stub(payload), b""
                entries.append(Entry(name, payload, origin, keys, bookkeeping=bool(flags & _BOOKKEEPING)))
            else:
                entries.append(Entry(name, raw[end:], origin))
            is_known &= end <= len(raw)
    except (struct.error, IndexError, ValueError, TypeError):  # also UnicodeDecodeError
        is_known = False
    if not is_known:
        raise Corrupt(f"an entry of {key} is unreadable: entry {first + len(entries)}, or one ahead of it")
    return entries, stubs


def _decode_keys(raw: bytes, start: int) -> tuple[tuple[str, ...], int]:
    """Return the keys of an entry, and where they end."""
    keys = []
    end = start + 1
    for _ in range(raw[start]):
        at = end + _KEY_SIZE.size
        end = at + _KEY_SIZE.unpack_from(raw, end)[0]
        keys.append(raw[at:end].decode())
    return tuple(keys), end


def _decode_stub(raw: bytes) -> Stub:
    size, pieces = _STUB.unpack_from(raw)
    if not 0 < pieces <= size:
        raise ValueError("no pieces")
    return Stub(size, pieces, raw[_STUB.size :].decode())


def encode_head(head: Head) -> bytes:
    """Return the bytes of a head as a restore takes them: without expiry, and without a number of ids."""
    tail, times = head.tail, (head.active_us, head.changed_us)
    if head.deleted:
        return _TOMBSTONE.pack(FORMAT, _DELETED, tail.generation, *times)
    snapshot = head.snapshot or Snapshot(0, "", b"")
    texts = [text.encode() for text in (head.tail_origin, snapshot.origin, head.rewrite_id)]
    numbers = (tail.generation, tail.seq, head.heartbeat, *times, 0, 0, snapshot.seq)
    return b"".join((_HEAD.pack(FORMAT, *numbers, 0, *map(len, texts)), *texts, snapshot.summary))


def decode_head(raw: bytes, key: SessionKey) -> Head | None:
    """Return the head of a session, also of a deleted one; of no bytes, ``None``."""
    if not raw:
        return None
    require_known_format(raw[0])
    try:
        return checked_head(_decode_tombstone(raw, key) if len(raw) < _HEAD.size else _decode_live_head(raw, key))
    except (struct.error, UnicodeDecodeError, _NoNumberError):
        raise Corrupt(f"the head of {key} is unreadable") from None


def require_known_format(found: int) -> None:
    """:raises IncompatibleStore: a newer version of this package wrote the store."""
    if found > FORMAT:
        raise IncompatibleStore(f"the store has format {found}; this version reads format {FORMAT}")


def _decode_live_head(raw: bytes, key: SessionKey) -> Head:
    _, generation, seq, heartbeat, active_us, changed_us, _, _, snapshot_seq, _, *sizes = _HEAD.unpack_from(raw)
    tail_origin, snapshot_origin, rewrite_id, summary = _split(raw[_HEAD.size :], sizes)
    return Head(
        key,
        Position(_integer(generation), _integer(seq)),
        tail_origin.decode(),
        deleted=False,
        heartbeat=_integer(heartbeat),
        rewrite_id=rewrite_id.decode(),
        active_us=_integer(active_us),
        changed_us=_integer(changed_us),
        snapshot=Snapshot(_integer(snapshot_seq), snapshot_origin.decode(), summary) if snapshot_seq else None,
    )


def _decode_tombstone(raw: bytes, key: SessionKey) -> Head:
    _, _, generation, active_us, changed_us = _TOMBSTONE.unpack_from(raw)
    return Head(
        key,
        Position(_integer(generation), 0),
        "",
        deleted=True,
        heartbeat=0,
        rewrite_id="",
        active_us=_integer(active_us),
        changed_us=_integer(changed_us),
        snapshot=None,
    )


def _split(raw: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Return pieces of these sizes, and the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(raw[start : start + size])
        start += size
    if len(raw) < start:
        raise _NoNumberError
    return [*pieces, raw[start:]]


def _integer(number: float) -> int:
    if not is_count(number):
        raise _NoNumberError
    return int(number)


def is_count(number: float) -> bool:
    """Tell whether a number is whole, and one that a double holds exactly."""
    return 0 <= number <= _MAX_EXACT and int(number) == number
