"""Calls of the scripts, and what their answers mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from session_history.providers.redis import scripts
from session_history.providers.redis.connections import Call, Command, Word
from session_history.providers.redis.failures import code
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.packing import insist_on_format
from session_history.providers.redis.scripts import CORRUPT, DONE, REPLAYED, Script
from session_history.providers.redis.servers import Servers
from session_history.providers.redis.windows import Window
from session_history_hooks import Corrupt, SessionKey, StoreFull, Unavailable


class Calls:
    """Calls scripts.

    :param servers: finds those that the running event loop uses.
    """

    def __init__(self, options: RedisOptions, keys: Keys, servers: Callable[[], Awaitable[Servers]]) -> None:
        self._options = options
        self._keys = keys
        self._servers = servers

    async def look(self, key: SessionKey, window: Window | None, entry_id: str | None) -> tuple[Any, Sequence[bytes]]:
        """The answer of the script, and the entries of the window, of the same moment."""
        name, keys = key.session_id.encode(), self._keys.of_both(key)
        wanted = () if entry_id is None else (entry_id.encode(),)
        alone = Call(scripts.READ, keys, (name, *(window or (b"", b"")), *wanted))
        if window is None:
            return (await self._answers(alone, key))[0], ()
        try:
            call = Call(scripts.READ, keys, (name, b"", b"", *wanted), beside=("LRANGE", keys[3], *window))
            answer, raws = await self._answers(call, key)
        except StoreFull:  # a transaction is refused, a script that only reads is not
            [answer] = await self._answers(alone, key)
            raws = answer[2]
        return answer, raws

    async def session(self, script: Script, key: SessionKey, *values: Word) -> Sequence[Any]:
        name, keys = key.session_id.encode(), self._keys.of_both(key)
        call = Call(script, keys, (name, *values), behind=self._wait(script))
        answer, *confirmed = await self._answers(call, key)
        if confirmed and answer[0] in {DONE, REPLAYED}:
            self._insist_on_replicas(*confirmed)
        return cast("Sequence[Any]", answer)

    def _wait(self, script: Script) -> Command | None:
        """What follows an append, on its connection, since a server waits for the writes of the connection alone."""
        if script is not scripts.APPEND or not self._options.wait_replicas:
            return None
        return "WAIT", self._options.wait_replicas, self._options.wait_ms

    async def user(self, script: Script, keys: Sequence[bytes], *values: Word) -> Sequence[Any]:
        [answer] = await self._answers(Call(script, keys, values), "a listing")
        return cast("Sequence[Any]", answer)

    async def _answers(self, call: Call, subject: object) -> Sequence[Any]:
        answers = await (await self._servers()).call(call)
        if answers[0][0] == CORRUPT:
            _, flaw, raw = answers[0]
            insist_on_format(raw)
            raise Corrupt(f"{subject}: {flaw.decode()}")
        return answers

    def _insist_on_replicas(self, confirmed: object) -> None:
        wanted = self._options.wait_replicas
        if isinstance(confirmed, Exception):
            raise Unavailable(
                f"{self._options.shown}: the entry is stored, but the server refused to wait for replicas"
                f" ({code(confirmed)}); tried again, it will be found by its id"
            ) from None
        if not isinstance(confirmed, int) or confirmed < wanted:
            raise Unavailable(
                f"{self._options.shown}: the entry is stored, but only {confirmed} of {wanted} replicas confirmed it"
                f" within {self._options.wait_timeout:g} s; tried again, it will be found by its id"
            )
