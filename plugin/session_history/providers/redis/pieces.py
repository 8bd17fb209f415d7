"""Payloads that are too large for the list of entries. They stand in pieces, each in a hash of its own.

A writer stages the pieces under a key that expires. The script that stores the entry moves them to their place, in the
same atomic step. So a writer that dies leaves nothing behind, and a reader finds all pieces of an entry or none. Other
clients are served between two pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from session_history.providers.redis import scripts
from session_history.providers.redis.codec import Stub
from session_history.providers.redis.commands import Argument
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import PIECES, UNSTAGED, Script
from session_history_hooks import Corrupt, Entry, SessionKey, StoreFull, Unavailable, new_origin

INLINE_BYTES = 2**16
"""The largest payload in the list of entries. So the elements of a page have no more bytes than a page may hold."""

PIECE_BYTES = 2**20
"""The size of a piece. While a server receives it, all its other clients wait."""

FETCHED_PIECES = 2
"""The most pieces that one call fetches."""

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
        uploads: Sequence[Upload] = (),
        more_keys: Sequence[bytes] = (),
    ) -> Sequence[Any]:
        """Return the answer of a script that puts uploads in place.

        The script gets ``more_keys``, the keys of the pieces that it asked for, and two keys for each upload.
        """
        places = [name for each in uploads for name in (self._staged(key, each), self._keys.pieces(key, each.seq))]
        asked, stagings = b"", 0
        if sum(each.stub.pieces for each in uploads) == 1:
            await self._stage(key, uploads)  # one piece costs little more than the question if it is needed
        while True:
            more = (*more_keys, *self.of_seqs(key, asked), *places)
            answer = await self._runner.run_on_session(script, key, asked, *arguments, more_keys=more)
            if answer[0] == PIECES:
                asked = answer[1]
            elif answer[0] != UNSTAGED:
                return answer
            elif stagings == STAGINGS:
                raise Unavailable(f"{self._name} loses the pieces of a large entry before it is stored")
            else:
                stagings += 1
                await self._stage(key, uploads)

    def of_seqs(self, key: SessionKey, seqs: bytes) -> Iterator[bytes]:
        """Return the keys of the pieces of these entries.

        :param seqs: as a script returns them.
        """
        return (self._keys.pieces(key, int(seq)) for seq in seqs.split())

    async def fetch(self, key: SessionKey, stubs: Mapping[int, Stub]) -> Mapping[int, bytes] | None:
        """Return payloads by seq, or ``None`` if one of them is no longer there."""
        pieces = [(seq, number) for seq, stub in stubs.items() for number in range(stub.pieces)]
        found: list[bytes] = []
        for start in range(0, len(pieces), FETCHED_PIECES):
            batch = pieces[start : start + FETCHED_PIECES]
            names = [self._keys.pieces(key, seq) for seq, _ in batch]
            fields = [_field(stubs[seq].upload_id, number) for seq, number in batch]
            found += (await self._runner.run_on_user(scripts.FETCH, names, *fields))[1]
            if None in found[start:]:
                return None
        return _joined(stubs, found, key)

    async def _stage(self, key: SessionKey, uploads: Sequence[Upload]) -> None:
        try:
            for each in uploads:
                for number, start in enumerate(range(0, len(each.payload), PIECE_BYTES)):
                    piece = each.payload[start : start + PIECE_BYTES]
                    arguments = (_field(each.id, number), piece, self._staged_ms)
                    await self._runner.run_on_user(scripts.STAGE, [self._staged(key, each)], *arguments)
        except StoreFull:
            await self._runner.run_on_user(scripts.UNSTAGE, [self._staged(key, each) for each in uploads])
            raise

    def _staged(self, key: SessionKey, upload: Upload) -> bytes:
        return self._keys.staged(key, upload.id)


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
