"""Connections to the servers of a store: which one has a slot, and what is tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

from redis.asyncio.connection import Connection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError

from session_history.providers.redis.deadlines import Deadlines
from session_history.providers.redis.failures import LOST, code, passes, translated
from session_history.providers.redis.options import Address, RedisOptions
from session_history.providers.redis.scripts import Script
from session_history_hooks import ConfigurationError, Unavailable

FAREWELL = 1.0
"""Seconds for which a connection may take to close."""

T = TypeVar("T")

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
        self._address = address
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(options.max_connections)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, of which each may be the :class:`~redis.exceptions.ResponseError` that it is."""
        async with self._places:
            connection = self._idle.pop() if self._idle else self._options.connection(self._address)
            try:
                await connection.send_packed_command(packed(commands), check_health=False)
                answers = [await _answer(connection) for _ in commands]
            except BaseException as error:
                # A cancelled call has left its answer in the socket; what was sent runs to its end all the same.
                await connection.disconnect(nowait=True)
                if isinstance(error, LOST):
                    await self._give_up()
                raise
            self._idle.append(connection)
            return answers

    async def _give_up(self) -> None:
        """The idle connections were made before one broke, and may be broken, too."""
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    async def close(self) -> None:
        while self._idle:
            with suppress(*LOST):
                async with asyncio.timeout(FAREWELL):
                    await self._idle.pop().disconnect()


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


class Servers:
    """The servers of a store, as one event loop uses them."""

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._servers: dict[Address, Server] = {}
        self._owners: list[Address | None] = []
        self._learning = asyncio.Lock()
        self._deadlines = Deadlines(options.timeout)

    async def call(self, call: Call) -> Sequence[Any]:
        """The answers of its script and of the command with it."""
        return await self.insist(lambda: self._attempt(call))

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again what fails, but may not fail a little later, until the time is up.

        :raises Unavailable: it is up.
        :raises SessionHistoryError: see :func:`~session_history.providers.redis.failures.translated`.
        """
        last: list[Exception] = []
        try:
            with self._deadlines.call():
                return await self._repeat(attempt, last)
        except TimeoutError:
            self._owners = []
            reason = code(last[-1]) if last else "no answer"
            raise Unavailable(
                f"{self._options.shown} could not be used for {self._options.timeout:g} s ({reason})"
            ) from None
        except Exception as error:
            raise translated(error, self._options.shown) from None

    async def masters(self) -> list[Server]:
        """All that can be written."""
        if not self._options.place.cluster:
            return [self._at(self._options.place.seeds[0])]
        await self._learn()
        return [self._at(address) for address in set(self._owners) if address]

    async def ping(self) -> bool:
        """Whether all that can be written answer; a connection that broke while it was idle is made anew."""
        try:
            servers = await self.masters()
            answers = [await server.ask([("PING",)]) for server in servers]
        except LOST:
            self._owners = []
            servers = await self.masters()
            answers = [await server.ask([("PING",)]) for server in servers]
        return all(answer == [b"PONG"] for answer in answers)

    async def close(self) -> None:
        """Close all connections when the calls that go on have ended, which takes no longer than their time-out."""
        await self._deadlines.quiet()
        for server in self._servers.values():
            await server.close()

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], failures: list[Exception]) -> T:
        while True:
            try:
                return await attempt()
            except Exception as error:
                if not passes(error, cluster=self._options.place.cluster):
                    raise
                failures.append(error)
                self._doubt(error)
            await asyncio.sleep(_pause(len(failures)))

    async def _attempt(self, call: Call) -> Sequence[Any]:
        try:
            return await _run(await self._owner(call.keys[0]), call)
        except AskError as error:
            if isinstance(error, MovedError) or not self._options.place.cluster:
                raise
            return await _run(self._at(Address(error.host, error.port)), call, asking=True)

    def _doubt(self, error: Exception) -> None:
        """What is known of the slots may be old."""
        if isinstance(error, MovedError) and self._owners and error.host:
            self._owners[error.slot_id] = Address(error.host, error.port)
        else:
            self._owners = []

    def _at(self, address: Address) -> Server:
        server = self._servers.get(address)
        if server is None:
            server = self._servers[address] = Server(self._options, address)
        return server

    async def _owner(self, key: bytes) -> Server:
        if not self._options.place.cluster:
            return self._at(self._options.place.seeds[0])
        if not self._owners:
            await self._learn()
        address = self._owners[key_slot(key)]
        if address is None:
            self._owners = []
            raise ConnectionError("no server has this slot")
        return self._at(address)

    async def _learn(self) -> None:
        """Ask the servers, in any order, who has which slot; the first that answers is believed."""
        async with self._learning:
            if self._owners:
                return
            known = list({*self._servers, *self._options.place.seeds})
            random.shuffle(known)
            failure: Exception = ConnectionError()
            for address in known:
                try:
                    async with asyncio.timeout(self._options.timeout / 4):
                        [slots] = await self._at(address).ask([("CLUSTER", "SLOTS")])
                except LOST as error:
                    failure = error
                    continue
                if isinstance(slots, ResponseError):
                    failure = _no_cluster(slots, address)
                    continue
                self._owners = _owners(slots, address)
                return
            raise failure


async def _run(server: Server, call: Call, *, asking: bool = False) -> Sequence[Any]:
    before: list[Command] = [("ASKING",)] if asking else []
    try:
        return call.outcome((await server.ask([*before, *call.commands()]))[len(before) :])
    except NoScriptError:
        return call.outcome((await server.ask([*before, *call.commands(spelt_out=True)]))[len(before) :])


def _no_cluster(refusal: ResponseError, address: Address) -> Exception:
    if type(refusal) is ResponseError:
        return ConfigurationError(f"{address} belongs to no cluster: write redis:// or rediss://")
    return refusal


def _owners(slots: Sequence[Any], asked: Address) -> list[Address | None]:
    """For each slot its master, as CLUSTER SLOTS has it. Without a host it is the one that was asked."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, (host, port, *_), *_ in slots:
        name = host.decode() if host else asked.host
        owners[first : last + 1] = [Address(name, port)] * (last + 1 - first)
    return owners


def _pause(failures: int) -> float:
    """Seconds before the next try: none at first, since the slot's server is known now, or the connection is new."""
    return random.uniform(0.5, 1) * min(0.5, 0.005 * 2.0**failures) if failures > 1 else 0
