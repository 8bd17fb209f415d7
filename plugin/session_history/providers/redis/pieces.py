"""Payloads that are too large for the list of entries. They stand in pieces, each in a hash of its own.

A writer stages the pieces under a key that expires. The script that stores the entry moves them to their place, in the
same atomic step. So a writer that dies leaves nothing behind, and a reader finds all pieces of an entry or none. Other
clients are served between two pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from session_history.providers.redis.codec import Stub
from session_history.providers.redis.commands import Argument
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import PIECES, RESTORE, UNSTAGED, Script
from session_history_hooks import Corrupt, Entry, SessionKey, StoreFull, Unavailable, new_origin

T = TypeVar("T")

INLINE_BYTES = 2**16
"""The largest payload in the list of entries. So the elements of a page have no more bytes than a page may hold."""

PIECE_BYTES = 2**20
"""The size of a piece. While a server receives it, all its other clients wait."""

FETCHED_BYTES = 4 * 2**20
"""The most bytes that one call fetches."""

STAGED_SECONDS = 60
"""The time that a writer has for the next piece, in addition to the timeout of two calls."""

STAGINGS = 3
"""How often pieces are staged that the server lost again."""


class Upload(NamedTuple):
    """A large payload on its way to its place.

    :ivar seq: seq of its entry.
    """

    seq: int
    payload: bytes
    id: str

    @classmethod
    def of(cls, entry: Entry, seq: int) -> Upload | None:
        """Return the upload of an entry; ``None`` if its payload is not large."""
        return cls(seq, entry.payload, new_origin()) if len(entry.payload) > INLINE_BYTES else None

    @property
    def stub(self) -> Stub:
        return Stub(len(self.payload), math.ceil(len(self.payload) / PIECE_BYTES), self.id)


class Pieces:
    """Writes and reads large payloads."""

    def __init__(self, options: RedisOptions, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys
        self._name = options.redacted_url
        self._staged_ms = math.ceil((STAGED_SECONDS + 2 * options.timeout) * 1000)

    async def run(
        self,
        script: Script,
        key: SessionKey,
        *arguments: Argument,
        upload: Upload | None = None,
        more_keys: Sequence[bytes] = (),
    ) -> Sequence[Any]:
        """Return the answer of a script that puts an upload in place.

        The script gets ``more_keys``, then the keys of the pieces that it asked for, and then two keys of the upload.
        """
        places = (self._keys.staged(key, upload.id), self._keys.pieces(key, upload.seq)) if upload else ()
        asked, stagings = b"", 0
        if upload and upload.stub.pieces == 1 and script is not RESTORE:
            # One piece costs little more than the question if it is needed. For a restore it often is not.
            await self._stage(key, upload)
        while True:
            more = (*more_keys, *self.of_seqs(key, asked), *places)
            answer = await self._runner.run_on_session(script, key, asked, *arguments, more_keys=more)
            if answer[0] == PIECES:
                asked = answer[1]
            elif answer[0] != UNSTAGED or upload is None:
                return answer
            elif stagings == STAGINGS:
                raise Unavailable(f"{self._name} loses the pieces of a large entry before it is stored")
            else:
                stagings += 1
                await self._stage(key, upload)

    def of_seqs(self, key: SessionKey, seqs: bytes) -> Iterator[bytes]:
        """Return the keys of the pieces of these entries.

        :param seqs: as a script returns them.
        :raises Corrupt: one of them is not a number.
        """
        parts = seqs.split()
        if not all(map(bytes.isdigit, parts)):
            raise Corrupt(f"{key} has no valid list of its large entries")
        return (self._keys.pieces(key, int(seq)) for seq in parts)

    async def fetch(self, key: SessionKey, stubs: Mapping[int, Stub]) -> Mapping[int, bytes] | None:
        """Return payloads by seq, or ``None`` if one of them is no longer there."""
        pieces = [(seq, number) for seq, stub in stubs.items() for number in range(stub.pieces)]
        found: list[bytes] = []
        for portion in portions(pieces, lambda piece: stubs[piece[0]].piece_size, FETCHED_BYTES):
            fields = ((self._keys.pieces(key, seq), _field(stubs[seq].upload_id, number)) for seq, number in portion)
            found += await self._runner.run_commands(*(("HGET", name, field) for name, field in fields))
            if None in found[-len(portion) :]:
                return None
        return _joined(stubs, found, key)

    async def _stage(self, key: SessionKey, upload: Upload) -> None:
        name = self._keys.staged(key, upload.id)
        try:
            for number, start in enumerate(range(0, len(upload.payload), PIECE_BYTES)):
                piece = upload.payload[start : start + PIECE_BYTES]
                await self._runner.run_commands(
                    ("HSET", name, _field(upload.id, number), piece),
                    ("PEXPIRE", name, self._staged_ms),
                    is_transaction=True,
                )
        except StoreFull:
            await self._runner.run_commands(("UNLINK", name))
            raise


def portions(items: Sequence[T], size_of: Callable[[T], int], limit: int) -> Iterator[Sequence[T]]:
    """Yield neighbours whose sizes are within a limit together. A larger item has a portion of its own."""
    start = total = 0
    for place, item in enumerate(items):
        size = size_of(item)
        total += size
        if place > start and total > limit:
            yield items[start:place]
            start, total = place, size
    if items:
        yield items[start:]


def _field(upload_id: str, number: int) -> str:
    return f"{upload_id}{number}"


def _joined(stubs: Mapping[int, Stub], pieces: Iterable[bytes], key: SessionKey) -> Mapping[int, bytes]:
    """Join pieces, which come in the order of the stubs.

    :raises Corrupt: a payload has another size than its stub says.
    """
    rest = iter(pieces)
    payloads = {seq: b"".join(islice(rest, stub.pieces)) for seq, stub in stubs.items()}
    if any(len(payloads[seq]) != stub.size for seq, stub in stubs.items()):
        raise Corrupt(f"a large entry of {key} is cut off")
    return payloads
