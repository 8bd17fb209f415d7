"""The client of a single server or a cluster: it finds the server of a slot, and retries failed calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, ReadOnlyError, ResponseError

from session_history.providers.common.backoff import pauses
from session_history.providers.redis import scripts
from session_history.providers.redis.commands import Call, ScriptCall
from session_history.providers.redis.deadlines import Deadlines
from session_history.providers.redis.errors import (
    CONNECTION_ERRORS,
    ServerAbsent,
    describe,
    is_transient,
    translated,
)
from session_history.providers.redis.options import Address, RedisOptions
from session_history.providers.redis.pool import ServerPool
from session_history_hooks import ConfigurationError, Unavailable

T = TypeVar("T")

_SLOTS_ERRORS: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, ResponseError, ConfigurationError)
"""Errors of a server that was asked for the slots. Another server may know them."""


class Client:
    """Connections of one event loop to the servers of a store."""

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._pools: dict[Address, ServerPool] = {}
        self._slot_owners: list[Address | None] = []
        self._slots_lock = asyncio.Lock()
        self._deadlines = Deadlines(options.timeout)

    @property
    def is_cluster(self) -> bool:
        return self._options.parts.cluster

    @property
    def addresses(self) -> set[Address]:
        """The servers that the client has connected to."""
        return set(self._pools)

    async def call(self, call: Call) -> Sequence[Any]:
        """Return the answer of a script, and that of the command with it; or the answers of commands."""
        return await self.retry(lambda: self._attempt(call))

    async def retry(self, attempt: Callable[[], Awaitable[T]], *, starting: bool = False) -> T:
        """Repeat an attempt after transient errors, until the timeout.

        :param starting: fail at once if no server is there, as at the first contact with a store.
        :raises Unavailable: the timeout passed.
        :raises StoreReadOnly: the timeout passed, and only a replica answered.
        :raises SessionHistoryError: see :func:`~session_history.providers.redis.errors.translated`.
        """
        failures: list[Exception] = []
        try:
            with self._deadlines.new():
                return await self._retry(attempt, failures, starting=starting)
        except TimeoutError:
            await self._reset_routes()
            if failures and isinstance(failures[-1], ReadOnlyError):
                raise translated(failures[-1], self._options.redacted_url) from None
            reason = describe(failures[-1]) if failures else "no answer"
            raise Unavailable(
                f"{self._options.redacted_url} could not be used for {self._options.timeout:g} s ({reason})"
            ) from None
        except Exception as error:
            raise translated(error, self._options.redacted_url) from None

    async def masters(self) -> list[ServerPool]:
        """Return the servers that accept writes, by address."""
        if not self.is_cluster:
            return [self.pool(self._options.parts.addresses[0])]
        await self._load_slots()
        return [self.pool(address) for address in sorted(filter(None, set(self._slot_owners)))]

    def pool(self, address: Address) -> ServerPool:
        """Return the connections to a server. The first connection is opened at the first use."""
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = ServerPool(self._options, address)
        return pool

    async def ping(self) -> bool:
        """Return True if all masters answer and take writes. A connection that broke while it was idle is replaced.

        :raises ResponseError: a master takes no writes.
        """
        with self._deadlines.new():
            try:
                return await self._ping()
            except CONNECTION_ERRORS:
                self.forget_slots()
                return await self._ping()

    def forget_slots(self) -> None:
        """Ask the cluster for its slots before the next call."""
        self._slot_owners = []

    async def close(self) -> None:
        """Wait for the running calls, at most for their timeout, and close all connections."""
        await self._deadlines.wait_idle()
        await self.abort()

    async def abort(self) -> None:
        """Close the idle connections now, and the others when their calls end."""
        for pool in self._pools.values():
            await pool.close()

    def discard(self) -> None:
        """Do nothing: without its event loop, only the garbage collector can close a connection."""

    async def _ping(self) -> bool:
        call = ScriptCall(scripts.MAY_WRITE, (), ())
        answers = [await pool.run(call) for pool in await self.masters()]
        return all(answer == [scripts.DONE] for answer in answers)

    async def _retry(self, attempt: Callable[[], Awaitable[T]], failures: list[Exception], *, starting: bool) -> T:
        # No pause at first: after one failure the owner of the slot is known, or the connection is new.
        intervals = chain([0.0], pauses(0.02, 0.5))
        while True:
            try:
                return await attempt()
            except Exception as error:
                # Once a cluster has named its masters, an absent one may be replaced by a replica.
                absent = starting and isinstance(error, ServerAbsent) and not self._slot_owners
                if absent or not is_transient(error, cluster=self.is_cluster):
                    raise
                failures.append(error)
                self._update_slots(error)
            await asyncio.sleep(next(intervals))

    async def _attempt(self, call: Call) -> Sequence[Any]:
        pool = await self._pool_of(call.keys[0])
        try:
            return await pool.run(call)
        except ReadOnlyError:
            # The server has become a replica. Its name may lead to the new master, but open connections do not.
            await pool.drop_idle()
            raise
        except AskError as error:
            if isinstance(error, MovedError) or not self.is_cluster:
                raise
            host = error.host or pool.address.host  # an empty host is that of the server that answered
            return await self.pool(Address(host, error.port)).run(call, asking=True)

    async def _reset_routes(self) -> None:
        """Forget all that may have caused a timeout: only silence shows that the other end of a connection is gone."""
        self.forget_slots()
        for pool in list(self._pools.values()):
            await pool.drop_idle(self._options.timeout)

    def _update_slots(self, error: Exception) -> None:
        """Change what an error shows to be out of date."""
        if isinstance(error, MovedError) and self._slot_owners and error.host:
            self._slot_owners[error.slot_id] = Address(error.host, error.port)
        else:
            self.forget_slots()

    async def _pool_of(self, key: bytes) -> ServerPool:
        if not self.is_cluster:
            return self.pool(self._options.parts.addresses[0])
        if not self._slot_owners:
            await self._load_slots()
        address = self._slot_owners[key_slot(key)]
        if address is None:
            self.forget_slots()
            raise ConnectionError("no server has this slot")
        return self.pool(address)

    async def _load_slots(self) -> None:
        """Ask one server after another which master has which slot, until one knows. Responsive servers come first."""
        async with self._slots_lock:
            if self._slot_owners:
                return
            candidates = list({*self._pools, *self._options.parts.addresses})
            random.shuffle(candidates)
            candidates.sort(key=lambda address: not self.pool(address).is_responsive)
            failures: list[Exception] = []
            for address in candidates:
                try:
                    self._slot_owners = await self._slots_known_to(address)
                except _SLOTS_ERRORS as error:
                    failures.append(error)
                else:
                    await self._retire_removed_servers()
                    return
            raise min(failures, key=_severity)

    async def _slots_known_to(self, address: Address) -> list[Address | None]:
        async with asyncio.timeout(self._options.timeout / 4):
            [slots] = await self.pool(address).execute([("CLUSTER", "SLOTS")])
        if isinstance(slots, ResponseError):
            raise _slots_refused(slots, address)
        owners = _slot_owners(slots, address)
        if not any(owners):  # the server has left the cluster, or has not joined it yet
            raise ConnectionError("it knows of no slots")
        return owners

    async def _retire_removed_servers(self) -> None:
        """Close the connections to servers that left the cluster, which would otherwise be asked for slots again."""
        for address in self._pools.keys() - {*self._slot_owners, *self._options.parts.addresses}:
            await self._pools.pop(address).retire()


def _severity(error: Exception) -> tuple[bool, bool]:
    """Order errors: those that may pass come first, absent servers after others."""
    return not is_transient(error, cluster=True), isinstance(error, ServerAbsent)


def _slots_refused(refusal: ResponseError, address: Address) -> Exception:
    if type(refusal) is ResponseError:
        return ConfigurationError(f"{address} does not belong to a cluster: write redis:// or rediss://")
    return refusal


def _slot_owners(slots: Sequence[Any], asked: Address) -> list[Address | None]:
    """Return the master of each slot from the answer to CLUSTER SLOTS. A missing host is that of the server asked."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, (host, port, *_), *_ in slots:
        name = host.decode() if host else asked.host
        owners[first : last + 1] = [Address(name, port)] * (last + 1 - first)
    return owners
