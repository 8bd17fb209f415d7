"""Digests of the ids and keys of the newest entries, by which an append finds a repeat without a request."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

REMEMBERED_IDS = 256
"""A head has the digests of at least this many newest ids and keys."""
DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class IdDigests:
    """The digests of the newest entries. Of each entry it holds all or none.

    :ivar digests: the tail's last. The id of an entry comes before its keys.
    :ivar counts: for each entry, how many digests it has; empty if each has one, as nearly all have.
    """

    digests: bytes = b""
    counts: bytes = b""

    @property
    def entries(self) -> int:
        """The number of entries."""
        return len(self.counts) or len(self.digests) // DIGEST_BYTES

    def add(self, names: Sequence[str]) -> IdDigests:
        """Return the digests with those of a newer entry, and without entries that are too old to be remembered.

        :param names: the id and the keys of the entry.
        """
        digests = self.digests + b"".join(map(digest, names))
        if not self.counts and len(names) == 1:
            return IdDigests(digests[-REMEMBERED_IDS * DIGEST_BYTES :])
        counts = (self.counts or b"\1" * self.entries) + bytes([len(names)])
        surplus, dropped = len(digests) // DIGEST_BYTES - REMEMBERED_IDS, 0
        while surplus >= counts[dropped]:
            surplus -= counts[dropped]
            dropped += 1
        kept = counts[dropped:]
        return IdDigests(digests[-sum(kept) * DIGEST_BYTES :], kept if max(kept) > 1 else b"")

    def find(self, name: str) -> list[int]:
        """Return the numbers of the entries with the digest of this id or key; 0 is the oldest of these entries.

        Few other ids share a digest.
        """
        places = list(_places(self.digests, digest(name)))
        if not self.counts or not places:
            return places
        ends = list(accumulate(self.counts))
        return [bisect_right(ends, place) for place in places]


def digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).digest()


def _places(digests: bytes, wanted: bytes) -> Iterator[int]:
    start = digests.find(wanted)
    while start >= 0:
        if start % DIGEST_BYTES == 0:
            yield start // DIGEST_BYTES
        start = digests.find(wanted, start + 1)
