"""Connections to one server, and what goes over them in one round trip."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, ResponseError

from session_history.providers.redis.failures import LOST, told_apart
from session_history.providers.redis.options import Address, RedisOptions
from session_history.providers.redis.scripts import Script

FAREWELL = 1.0
"""Seconds for which a connection may take to close."""

Word: TypeAlias = bytes | str | int
Command: TypeAlias = Sequence[Word]


class Call(NamedTuple):
    """A script, what it is called with, and a command that goes with it.

    :ivar keys: all of one slot.
    :ivar beside: what the server answers besides, of the same moment: it copies a long list far faster than a script.
    :ivar behind: comes next on the same connection.
    """

    script: Script
    keys: Sequence[bytes]
    values: Sequence[Word]
    beside: Command | None = None
    behind: Command | None = None

    def commands(self, *, spelt_out: bool = False) -> list[Command]:
        way: tuple[Word, Word] = ("EVAL", self.script.text) if spelt_out else ("EVALSHA", self.script.name)
        run = (*way, len(self.keys), *self.keys, *self.values)
        if self.beside:
            return [("MULTI",), run, self.beside, ("EXEC",)]
        return [run, self.behind] if self.behind else [run]

    def outcome(self, answers: Sequence[Any]) -> Sequence[Any]:
        """What the script answered and the command with it, if any.

        :raises ResponseError: the script was refused.
        """
        if self.beside:
            answers = answers[-1] if isinstance(answers[-1], list) else answers
            decisive = answers
        else:
            decisive = answers[:1]
        for answer in decisive:
            if isinstance(answer, ResponseError):
                raise answer
        return answers


class Server:
    """Connections to one server. Each is used by one call at a time, and given up if that did not end well."""

    def __init__(self, options: RedisOptions, address: Address) -> None:
        self._options = options
        self.address = address
        self._idle: list[tuple[Connection, float]] = []  # each with the time when it was heard from
        self._clock = asyncio.get_running_loop().time
        self._retired = False
        self._places = asyncio.Semaphore(options.max_connections)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, of which each may be the :class:`~redis.exceptions.ResponseError` that it is."""
        handled = sys.exception()
        async with self._places:
            connection = self._idle.pop()[0] if self._idle else self._options.connection(self.address)
            try:
                await connection.send_packed_command(packed(commands), check_health=False)
                answers = [await _answer(connection) for _ in commands]
            except BaseException as error:
                # A cancelled call has left its answer in the socket; what was sent runs to its end all the same.
                await connection.disconnect(nowait=True)
                if isinstance(error, LOST):
                    await self.give_up()
                    raise told_apart(error, handled) from None
                raise
            if self._retired:
                await connection.disconnect(nowait=True)
            else:
                self._idle.append((connection, self._clock()))
            return answers

    @property
    def is_known(self) -> bool:
        """Whether nothing has spoken against it since it answered."""
        return bool(self._idle)

    async def give_up(self, silence: float = 0) -> None:
        """The idle connections were made before one broke, and may be broken, too.

        :param silence: those that were heard from in the last so many seconds are kept.
        """
        given_up = [each for each, heard in self._idle if heard <= self._clock() - silence]
        self._idle = [each for each in self._idle if each[0] not in given_up]
        for connection in given_up:
            await connection.disconnect(nowait=True)

    async def retire(self) -> None:
        """Give up all connections; a call that goes on does so with its own when it ends."""
        self._retired = True
        await self.give_up()

    async def close(self) -> None:
        self._retired = True
        while self._idle:
            with suppress(*LOST):
                async with asyncio.timeout(FAREWELL):
                    await self._idle.pop()[0].disconnect()


def packed(commands: Iterable[Command]) -> list[bytes]:
    """Commands as the server reads them, a third faster than the driver does it."""
    pieces = []
    for command in commands:
        pieces.append(b"*%d\r\n" % len(command))
        for word in command:
            raw = word if type(word) is bytes else str(word).encode()
            pieces.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return pieces


async def _answer(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal


async def run(server: Server, call: Call, *, asking: bool = False) -> Sequence[Any]:
    before: list[Command] = [("ASKING",)] if asking else []
    try:
        return call.outcome((await server.ask([*before, *call.commands()]))[len(before) :])
    except NoScriptError:
        return call.outcome((await server.ask([*before, *call.commands(spelt_out=True)]))[len(before) :])
