"""Deletes of sessions and users."""

from __future__ import annotations

from collections.abc import Sequence

from session_history.providers.redis import scripts
from session_history.providers.redis.commands import new_call_id
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import CORRUPT, DONE
from session_history_hooks import Corrupt, SessionKey

BATCH = 100
"""The most sessions that one script deletes. Other clients wait while a script runs."""


class Deletion:
    """Deletes sessions of a store."""

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys

    async def delete_session(self, key: SessionKey) -> bool:
        [outcome] = await self._delete(key.user_id, [key.session_id.encode()])
        if outcome == CORRUPT:
            raise Corrupt(f"{key} cannot be deleted: its head is missing or unreadable")
        return outcome == DONE

    async def delete_user(self, user_id: str) -> int:
        session_ids = await self._session_ids(user_id)
        outcomes: list[int] = []
        for start in range(0, len(session_ids), BATCH):
            outcomes += await self._delete(user_id, session_ids[start : start + BATCH])
        if CORRUPT in outcomes:
            raise Corrupt(f"{outcomes.count(CORRUPT)} sessions could not be deleted: their heads are unreadable")
        return outcomes.count(DONE)

    async def _session_ids(self, user_id: str) -> Sequence[bytes]:
        """Return the ids of all sessions of a user, which the server looks up in portions."""
        heads = self._keys.of_user(user_id)[:1]
        session_ids: dict[bytes, None] = {}
        cursor, least = b"0", 0
        while True:
            is_first = cursor == b"0"
            _, found, cursor, total = await self._runner.run_on_user(scripts.SCAN_SESSIONS, heads, cursor)
            least = total if is_first else min(least, total)  # the scan may miss sessions that began during it
            session_ids |= dict.fromkeys(found)
            # Another server, or one that restarted, reads the cursor differently. Too few ids show it: scan again.
            if cursor == b"0" and len(session_ids) >= least:
                return list(session_ids)

    async def _delete(self, user_id: str, session_ids: Sequence[bytes]) -> Sequence[int]:
        parts = (key for session_id in session_ids for key in self._keys.of_session(user_id, session_id))
        keys = [*self._keys.of_user(user_id), *parts]
        answer: Sequence[int] = await self._runner.run_on_user(scripts.DELETE, keys, new_call_id(), *session_ids)
        return answer[1:]
