"""Deletes of sessions and users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from session_history.providers.redis import scripts
from session_history.providers.redis.answers import key_of
from session_history.providers.redis.commands import new_call_id
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.pieces import Pieces
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scans import scan_hash
from session_history.providers.redis.scripts import CORRUPT, DONE
from session_history_hooks import IncompatibleStore, SessionKey

BATCH = 100
"""The most sessions that one script deletes. Other clients wait while a script runs."""


class Deletion:
    """Deletes sessions of a store."""

    def __init__(self, runner: ScriptRunner, keys: Keys, pieces: Pieces) -> None:
        self._runner = runner
        self._keys = keys
        self._pieces = pieces

    async def delete_session(self, key: SessionKey) -> bool:
        outcome = (await self._delete(key.user_id, [key.session_id.encode()]))[0]
        if isinstance(outcome, bytes):
            outcome = await self._delete_with_pieces(key, outcome)
        if outcome == CORRUPT:
            raise IncompatibleStore(f"{key} cannot be deleted: a newer version of this package wrote it")
        return outcome == DONE

    async def delete_user(self, user_id: str) -> int:
        session_ids = list(await scan_hash(self._runner, scripts.SCAN_SESSIONS, self._keys.of_user(user_id)))
        outcomes: list[int] = []
        for start in range(0, len(session_ids), BATCH):
            batch = session_ids[start : start + BATCH]
            for session_id, outcome in zip(batch, await self._delete(user_id, batch), strict=True):
                if isinstance(outcome, bytes) and (key := key_of(user_id, session_id)):
                    outcomes.append(await self._delete_with_pieces(key, outcome))
                elif isinstance(outcome, bytes):  # A damaged name does not lead to pieces.
                    outcomes += [each for each in await self._delete(user_id, [session_id], outcome) if each == DONE]
                else:
                    outcomes.append(outcome)
        if CORRUPT in outcomes:
            raise IncompatibleStore(
                f"{outcomes.count(CORRUPT)} sessions of {user_id!r} were written by a newer version"
            )
        return outcomes.count(DONE)

    async def _delete_with_pieces(self, key: SessionKey, seqs: bytes) -> int:
        """Delete a session that has large entries.

        :param seqs: those of the entries.
        """
        outcome: int | bytes = seqs
        while isinstance(outcome, bytes):
            pieces = [self._keys.pieces(key, int(seq)) for seq in outcome.split() if seq.isdigit()]
            [outcome] = await self._delete(key.user_id, [key.session_id.encode()], outcome, pieces)
        return outcome

    async def _delete(
        self, user_id: str, session_ids: Sequence[bytes], seqs: bytes = b"", pieces: Iterable[bytes] = ()
    ) -> Sequence[int | bytes]:
        """Return for each session the outcome, or if it has other large entries than ``seqs``, their seqs."""
        parts = (key for session_id in session_ids for key in self._keys.of_session(user_id, session_id))
        keys = [*self._keys.of_user(user_id), *parts, *pieces]
        answer: Sequence[int | bytes] = await self._runner.run_on_user(
            scripts.DELETE, keys, new_call_id(), seqs, *session_ids
        )
        return answer[1:]
