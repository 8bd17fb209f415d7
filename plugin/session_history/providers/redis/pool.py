"""Connections to one server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, ResponseError

from session_history.providers.redis.commands import Call, Command, packed
from session_history.providers.redis.errors import CONNECTION_ERRORS, root_cause
from session_history.providers.redis.options import Address, RedisOptions

CLOSE_TIMEOUT = 1.0
"""Seconds that a connection may take to close."""


class ServerPool:
    """Connections of one event loop to one server.

    One call at a time uses a connection. A connection on which a call failed is closed.
    """

    def __init__(self, options: RedisOptions, address: Address) -> None:
        self._options = options
        self.address = address
        self._idle: list[tuple[Connection, float]] = []  # each with the time of its last answer
        self._clock = asyncio.get_running_loop().time
        self._retired = False
        self._capacity = asyncio.Semaphore(options.max_connections)

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one round trip and return their answers.

        An answer is a :class:`~redis.exceptions.ResponseError` if the server refused the command.
        """
        handled = sys.exception()
        async with self._capacity:
            connection = self._idle.pop()[0] if self._idle else self._options.connection(self.address)
            try:
                await connection.send_packed_command(packed(commands), check_health=False)
                answers = [await _answer(connection) for _ in commands]
            except BaseException as error:
                # The answer of a cancelled call is still to come on this connection. The server does what was sent.
                await connection.disconnect(nowait=True)
                if isinstance(error, CONNECTION_ERRORS):
                    await self.drop_idle()
                    raise root_cause(error, handled) from None
                raise
            if self._retired:
                await connection.disconnect(nowait=True)
            else:
                self._idle.append((connection, self._clock()))
            return answers

    async def run(self, call: Call, *, asking: bool = False) -> Sequence[Any]:
        """Run a call, and load its script first if the server does not know it.

        :param asking: the server is importing the slot, and another server named it.
        """
        before: list[Command] = [("ASKING",)] if asking else []
        try:
            return call.results((await self.execute([*before, *call.commands()]))[len(before) :])
        except NoScriptError:
            return call.results((await self.execute([*before, *call.commands(with_text=True)]))[len(before) :])

    @property
    def is_responsive(self) -> bool:
        """True if the server answered, and no connection to it failed since."""
        return bool(self._idle)

    async def drop_idle(self, silent_for: float = 0) -> None:
        """Close idle connections. They are older than a connection that broke, so they may be broken, too.

        :param silent_for: keep the connections that had an answer in these last seconds.
        """
        dropped = [each for each, heard in self._idle if heard <= self._clock() - silent_for]
        self._idle = [each for each in self._idle if each[0] not in dropped]
        for connection in dropped:
            await connection.disconnect(nowait=True)

    async def retire(self) -> None:
        """Close idle connections now, and a connection in use when its call ends."""
        self._retired = True
        await self.drop_idle()

    async def close(self) -> None:
        """Close idle connections and wait until they are closed."""
        self._retired = True
        while self._idle:
            with suppress(*CONNECTION_ERRORS):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._idle.pop()[0].disconnect()


async def _answer(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
