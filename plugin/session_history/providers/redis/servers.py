"""Connections to the servers of a store: which one has a slot, and what is tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, ReadOnlyError, ResponseError

from session_history.providers.redis.connections import Call, Server, run
from session_history.providers.redis.deadlines import Deadlines
from session_history.providers.redis.failures import LOST, Absent, passes, reason, translated
from session_history.providers.redis.options import Address, RedisOptions
from session_history_hooks import ConfigurationError, Unavailable

T = TypeVar("T")


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

    async def insist(self, attempt: Callable[[], Awaitable[T]], *, starting: bool = False) -> T:
        """Try again what fails, but may not fail a little later, until the time is up.

        :param starting: nothing was heard of these hosts before, so a server that is absent is not waited for, nor a
            cluster of which all that are known are.
        :raises Unavailable: it is up.
        :raises StoreReadOnly: it is up, and nothing but a replica was there.
        :raises SessionHistoryError: see :func:`~session_history.providers.redis.failures.translated`.
        """
        last: list[Exception] = []
        try:
            with self._deadlines.call():
                return await self._repeat(attempt, last, starting=starting)
        except TimeoutError:
            await self._despair()
            if last and isinstance(last[-1], ReadOnlyError):
                raise translated(last[-1], self._options.shown) from None
            why = reason(last[-1]) if last else "no answer"
            raise Unavailable(
                f"{self._options.shown} could not be used for {self._options.timeout:g} s ({why})"
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
        with self._deadlines.call():
            try:
                return await self._ping()
            except LOST:
                self._owners = []
                return await self._ping()

    async def _ping(self) -> bool:
        answers = [await server.ask([("PING",)]) for server in await self.masters()]
        return all(answer == [b"PONG"] for answer in answers)

    async def close(self) -> None:
        """Close all connections when the calls that go on have ended, which takes no longer than their time-out."""
        try:
            await self._deadlines.quiet()
        finally:  # an event loop that ends cancels this
            for server in self._servers.values():
                await server.close()

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], failures: list[Exception], *, starting: bool) -> T:
        while True:
            try:
                return await attempt()
            except Exception as error:
                # Of a cluster that has told of its slots, a server may be absent until another takes over.
                hopeless = starting and isinstance(error, Absent) and not self._owners
                if hopeless or not passes(error, cluster=self._options.place.cluster):
                    raise
                failures.append(error)
                self._doubt(error)
            await asyncio.sleep(_pause(len(failures)))

    async def _attempt(self, call: Call) -> Sequence[Any]:
        server = await self._owner(call.keys[0])
        try:
            return await run(server, call)
        except ReadOnlyError:
            # It was a master. Its name may lead to another server by now, but a connection stays where it is.
            await server.give_up()
            raise
        except AskError as error:
            if isinstance(error, MovedError) or not self._options.place.cluster:
                raise
            host = error.host or server.address.host  # none is named if it is the same
            return await run(self._at(Address(host, error.port)), call, asking=True)

    async def _despair(self) -> None:
        """A connection whose other end is gone without a word is not known by anything but silence."""
        self._owners = []
        for server in list(self._servers.values()):
            await server.give_up(self._options.timeout)

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
        """Ask the servers who has which slot, those first that answered of late; the first that knows is believed."""
        async with self._learning:
            if self._owners:
                return
            known = list({*self._servers, *self._options.place.seeds})
            random.shuffle(known)
            known.sort(key=lambda address: not self._at(address).is_known)
            failures: list[Exception] = []
            for address in known:
                try:
                    async with asyncio.timeout(self._options.timeout / 4):
                        [slots] = await self._at(address).ask([("CLUSTER", "SLOTS")])
                except LOST as error:
                    failures.append(error)
                    continue
                if isinstance(slots, ResponseError):
                    failures.append(_no_cluster(slots, address))
                    continue
                owners = _owners(slots, address)
                if not any(owners):  # it left the cluster, or is not in it yet
                    failures.append(ConnectionError("it knows of no slots"))
                    continue
                self._owners = owners
                await self._forget_who_left()
                return
            raise min(failures, key=_hopelessness)

    async def _forget_who_left(self) -> None:
        """Addresses come and go, and those that nobody has any more would be asked again and again."""
        for address in self._servers.keys() - {*self._owners, *self._options.place.seeds}:
            await self._servers.pop(address).retire()


def _hopelessness(error: Exception) -> tuple[bool, bool]:
    return not passes(error, cluster=True), isinstance(error, Absent)


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
