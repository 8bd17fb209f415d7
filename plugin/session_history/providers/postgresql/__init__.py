"""A store in a PostgreSQL database, for any number of hosts, processes and event loops."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Literal, TypeVar

from session_history.providers.postgresql.address import SCHEMES, parse
from session_history.providers.postgresql.ids import check_id
from session_history.providers.postgresql.link import Link
from session_history.providers.postgresql.options import PostgresqlOptions
from session_history.providers.postgresql.pool import Pool
from session_history.providers.postgresql.rows import MAX_SEQ, Rows
from session_history.providers.postgresql.schema import examine, prepare
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Durability,
    Entry,
    Head,
    Limits,
    ListingCursor,
    Log,
    Page,
    Position,
    ProviderSpec,
    SessionKey,
    Snapshot,
    Unavailable,
    hookimpl,
)

T = TypeVar("T")

PAGE = 200
"""A page must arrive, and what a page holds must be deleted, within a timeout."""

NAME_BYTES = 63
"""PostgreSQL shortens longer names without an error."""


class PostgresqlProvider:
    """Keeps sessions in three tables of a PostgreSQL database, version 14 or newer with the encoding UTF8.

    :param url: ``postgresql://user:password@host:port/database?setting=value``, with the settings of libpq:
        ``sslmode``, ``sslrootcert``, ``application_name``, ``target_session_attrs`` … What is missing comes from the
        environment and the password file, as for libpq.
    :param schema: the PostgreSQL schema of the tables; it must exist. Without it, the first of the search path.
    :param pool_size: the most connections of an event loop.
    :param timeout: seconds for a call, with its wait for a connection, until the store counts as unavailable. A call
        that lost its connection, so that nobody knows what became of it, gets them once more to find out. A server
        that takes no part in the end of a connection costs a second each time.
    :param statement_cache: let the server keep prepared statements. A pooler that can not do that is noticed, so it
        need not be turned off for it.
    :param migrate: make and upgrade the tables on start; else :meth:`migration` says what an administrator has to run.
    :param durability: ``"disk"`` = an acknowledged append survives a power cut; a server whose settings say otherwise
        is refused. ``"host"`` = it need not.

    Connections do not survive a fork: start the provider after the fork.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        pool_size: int = 10,
        timeout: float = 10.0,
        statement_cache: bool = True,
        migrate: bool = True,
        durability: Literal["disk", "host"] = "disk",
    ) -> None:
        _check_options(schema, pool_size, timeout, durability)
        self._address = parse(url)
        self._schema = schema
        self._migrate = migrate
        self._new_pool = partial(Pool, self._address, pool_size, timeout, statement_cache)
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._rows: Rows | None = None
        self._pid = 0
        self._door = threading.Lock()
        self._limits = Limits(
            # As SQLite's, and far below the gigabyte of a PostgreSQL value, of which the protocol needs a part.
            entry_bytes=64 * 2**20,
            summary_bytes=2**20,
            entries=MAX_SEQ,
            page=PAGE,
            remembered_ids=None,
            durability=Durability(durability),
            atomic_head=True,
        )

    def __repr__(self) -> str:
        schema = f", schema={self._schema!r}" if self._schema else ""
        return f"PostgresqlProvider({self._address.shown!r}{schema})"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        if self._rows is not None:
            self._running()
            return
        pool = self._new_pool()
        schema = await pool.first(self._prepare, again=False)
        with self._door:
            if first := self._rows is None:
                self._pid, self._pools = os.getpid(), {asyncio.get_running_loop(): pool}
                self._rows = Rows(schema, PAGE)
        if not first:
            await pool.close()

    async def stop(self) -> None:
        with self._door:
            pools, self._pools, self._rows = self._pools, {}, None
        if self._pid == os.getpid():
            try:
                await asyncio.gather(*(_close(loop, pool) for loop, pool in pools.items()))
            finally:
                for loop, pool in pools.items():
                    _abandon(loop, pool)

    async def migration(self) -> tuple[str, ...]:
        """The statements that :meth:`start` would run first to make or upgrade the tables, from ``BEGIN`` to
        ``COMMIT``; none if they are up to date. Changes nothing.

        :raises SessionHistoryError: as :meth:`start`.
        """
        pool = self._new_pool()
        found = await pool.first(partial(examine, place=self._address.shown, schema=self._schema), again=True)
        await pool.close()
        return found.script

    async def health(self) -> bool:
        try:
            return await self._run(lambda rows, link: rows.answers(link))
        except Exception:
            return False

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        return await self._run(lambda rows, link: rows.read(link, key, last, before, after, entry_id))

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        self._check(entry, snapshot, at)
        return await self._run(lambda rows, link: rows.append(link, key, entry, at, snapshot))

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        return await self._run(lambda rows, link: rows.renew(link, key, at))

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        self._check(entry, snapshot)
        return await self._run(lambda rows, link: rows.rewrite(link, key, entry, at, rewrites, snapshot), again=False)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        behind = ListingCursor.decode(cursor) if cursor is not None else None
        return await self._run(lambda rows, link: rows.list(link, user_id, min(limit, PAGE), behind))

    async def delete(self, key: SessionKey) -> bool:
        return await self._run(lambda rows, link: rows.delete(link, key), again=False)

    async def delete_user(self, user_id: str) -> int:
        count = 0
        behind: str | None = ""
        while behind is not None:
            deleted, behind = await self._delete_some(user_id, behind)
            count += deleted
        return count

    async def _delete_some(self, user_id: str, behind: str) -> tuple[int, str | None]:
        return await self._run(lambda rows, link: rows.delete_some(link, user_id, behind), again=False)

    async def _run(self, work: Callable[[Rows, Link], Awaitable[T]], *, again: bool = True) -> T:
        """:param again: it does no harm to do it twice, and says the same."""
        rows = self._running()
        try:
            return await self._pool().run(partial(work, rows), again=again)
        except ConfigurationError as error:  # it could be there on start, so it may again
            raise Unavailable(str(error)) from None

    def _running(self) -> Rows:
        if self._rows is None:
            raise Unavailable(f"{self._address.shown} is not open: the service was stopped, or never started")
        if self._pid != os.getpid():
            raise Unavailable(f"{self._address.shown} was open when this process was forked; open it after the fork")
        return self._rows

    def _pool(self) -> Pool:
        """The connections of this event loop: a connection can not leave the one it was made in."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            with self._door:
                self._running()
                for closed in [each for each in self._pools if each.is_closed()]:
                    self._pools.pop(closed).hang_up()
                pool = self._pools[loop] = self._new_pool()
        return pool

    async def _prepare(self, link: Link) -> str:
        durable = self._limits.durability is Durability.DISK
        place = self._address.shown
        return await prepare(link, place, schema=self._schema, migrate=self._migrate, durable=durable)

    def _check(self, entry: Entry, snapshot: Snapshot | None, at: Position | None = None) -> None:
        self._limits.check(entry, snapshot, at)
        check_id(entry.id)


async def _close(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """Close the connections of an event loop in that loop."""
    if loop is asyncio.get_running_loop():
        await pool.close()
    elif loop.is_running():
        await _close_in(loop, pool)


async def _close_in(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """A loop that ends meanwhile cancels it, or comes first, or never gets to it: that is no failure of ours."""
    work = pool.close()
    try:
        closing = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
    except RuntimeError:  # it has ended just now
        work.close()
        return
    closing.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait([closing], timeout=3 * pool.timeout)


def _abandon(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """Drop what is left of them; a loop that stands still does it when it goes on."""
    try:
        loop.call_soon_threadsafe(pool.abandon)
    except RuntimeError:  # the loop was closed
        pool.hang_up()


def _check_options(schema: object, pool_size: object, timeout: object, durability: object) -> None:
    if schema is not None and (
        not isinstance(schema, str) or "\0" in schema or not 0 < len(schema.encode()) <= NAME_BYTES
    ):
        raise ConfigurationError(f"schema must be a name of 1 to {NAME_BYTES} bytes")
    if type(pool_size) is not int or pool_size < 1:
        raise ConfigurationError("pool_size must be a whole number above 0")
    if not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ConfigurationError("timeout must be a number of seconds above 0")
    if durability not in ("disk", "host"):
        raise ConfigurationError("durability must be 'disk' or 'host'")


def _open(options: PostgresqlOptions) -> PostgresqlProvider:
    return PostgresqlProvider(
        options.target,
        schema=options.schema_,
        pool_size=options.pool_size,
        timeout=options.timeout,
        statement_cache=options.statement_cache,
        migrate=options.migrate,
        durability=options.durability,
    )


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    for scheme in SCHEMES:
        yield ProviderSpec(scheme, PostgresqlOptions, _open)
