"""Runs of scripts, and the failures that their answers report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from session_history.providers.redis import scripts
from session_history.providers.redis.client import Client
from session_history.providers.redis.codec import require_known_format
from session_history.providers.redis.commands import Argument, Command, ScriptCall
from session_history.providers.redis.errors import error_code
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.list_range import ListRange
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.scripts import CORRUPT, DONE, REPLAYED, Script
from session_history_hooks import Corrupt, SessionKey, StoreFull, Unavailable


class ScriptRunner:
    """Runs scripts on the keys of a session or a user.

    :param client: returns the client of the running event loop.
    """

    def __init__(self, options: RedisOptions, keys: Keys, client: Callable[[], Awaitable[Client]]) -> None:
        self._options = options
        self._keys = keys
        self._client = client

    async def read(
        self, key: SessionKey, entries: ListRange | None, entry_id: str | None
    ) -> tuple[Any, Sequence[bytes]]:
        """Return the answer of the script, and the entries of a range, both of one moment."""
        session_id, keys = key.session_id.encode(), self._keys.for_script(key)
        wanted = () if entry_id is None else (entry_id.encode(),)
        script_only = ScriptCall(scripts.READ, keys, (session_id, *(entries or (b"", b"")), *wanted))
        if entries is None:
            return (await self._run(script_only, key))[0], ()
        query = ("LRANGE", keys[3], *entries)
        try:
            call = ScriptCall(scripts.READ, keys, (session_id, b"", b"", *wanted), query=query)
            answer, raws = await self._run(call, key)
        except StoreFull:  # the server refuses a transaction, but not a script that only reads
            [answer] = await self._run(script_only, key)
            raws = answer[2]
        return answer, raws

    async def run_on_session(
        self, script: Script, key: SessionKey, *arguments: Argument, more_keys: Sequence[bytes] = ()
    ) -> Sequence[Any]:
        session_id, keys = key.session_id.encode(), self._keys.for_script(key) + tuple(more_keys)
        call = ScriptCall(script, keys, (session_id, *arguments), follow_up=self._wait_after(script))
        answer, *confirmed = await self._run(call, key)
        if confirmed and answer[0] in {DONE, REPLAYED}:
            self._require_replicas(*confirmed)
        return cast("Sequence[Any]", answer)

    async def run_on_user(self, script: Script, keys: Sequence[bytes], *arguments: Argument) -> Sequence[Any]:
        [answer] = await self._run(ScriptCall(script, keys, arguments), "keys of a user")
        return cast("Sequence[Any]", answer)

    def _wait_after(self, script: Script) -> Command | None:
        # A server waits only for the writes of the same connection.
        if not self._options.wait_replicas or script not in {scripts.APPEND, scripts.RESTORE}:
            return None
        return "WAIT", self._options.wait_replicas, self._options.wait_ms

    async def _run(self, call: ScriptCall, subject: object) -> Sequence[Any]:
        answers = await (await self._client()).call(call)
        if answers[0][0] == CORRUPT:
            _, flaw, raw = answers[0]
            if raw:
                require_known_format(raw[0])
            raise Corrupt(f"{subject}: {flaw.decode()}")
        return answers

    def _require_replicas(self, confirmed: object) -> None:
        wanted = self._options.wait_replicas
        if isinstance(confirmed, Exception):
            raise Unavailable(
                f"{self._options.redacted_url}: the entry is stored, but the server refused to wait for replicas"
                f" ({error_code(confirmed)}); safe to retry"
            ) from None
        if not isinstance(confirmed, int) or confirmed < wanted:
            raise Unavailable(
                f"{self._options.redacted_url}: the entry is stored, but only {confirmed} of {wanted} replicas"
                f" confirmed it within {self._options.wait_timeout:g} s; safe to retry"
            )
