"""A provider that keeps sessions in PostgreSQL, for any number of hosts, processes and event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from session_history.providers.common.loops import LoopLocal
from session_history.providers.common.options import require_one_of, require_seconds
from session_history.providers.postgresql.address import SCHEMES, parse
from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.ids import check_id
from session_history.providers.postgresql.options import PostgresqlOptions
from session_history.providers.postgresql.pool import Pool
from session_history.providers.postgresql.rows import Rows
from session_history.providers.postgresql.schema import MAX_SEQ, examine, prepare
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
    Restorable,
    SessionKey,
    Shard,
    Snapshot,
    StoreFull,
    StoreInfo,
    Unavailable,
    UserPage,
    Users,
    check_origin,
    check_restore,
    hookimpl,
)

T = TypeVar("T")

PAGE = 200
"""The most entries of a page. They must arrive, and a delete must remove them, within one timeout."""

PAGE_BYTES = 64 * 2**20
"""The most bytes of payload in a page."""

NAME_BYTES = 63
"""The longest name: PostgreSQL shortens longer ones without an error."""


class PostgresqlProvider:
    """A provider on the tables of a schema of a PostgreSQL database, version 14 or newer with the encoding UTF8.

    Connections do not survive a fork: start the provider after the fork.

    :param url: ``postgresql://user:password@host:port/database?setting=value``, with the settings of libpq:
        ``sslmode``, ``sslrootcert``, ``application_name``, ``target_session_attrs`` … Settings that the URL lacks come
        from the environment and the password file, as for libpq.
    :param schema: the PostgreSQL schema of the tables; it must exist. Without it, the first of the search path.
    :param pool_size: the most connections of an event loop.
    :param timeout: seconds for a call, with its wait for a connection, until it raises ``Unavailable``. A call that
        lost its connection, so that its outcome is unknown, gets these seconds once more to learn it. A server that
        does not answer the end of a connection costs a second more each time.
    :param statement_cache: let the server keep prepared statements. A pooler that cannot keep them is detected, so
        this may stay on behind one.
    :param migrate: make and upgrade the tables on start. Otherwise, an administrator runs what :meth:`migration`
        returns.
    :param durability: ``"disk"`` = an acknowledged append survives a power cut; a server with other settings is
        refused. ``"host"`` = a power cut may take it.
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
        self._close_timeout = 3 * timeout
        self._open: _Open | None = None
        self._lock = threading.Lock()
        self._was_full = False
        self._limits = Limits(
            # As in SQLite, and far below the gigabyte of a PostgreSQL value: the protocol needs a part of that.
            entry_bytes=64 * 2**20,
            summary_bytes=2**20,
            entries=MAX_SEQ,
            page=PAGE,
            page_bytes=PAGE_BYTES,
            remembered_ids=None,
            durability=Durability(durability),
            atomic_head=True,
        )

    def __repr__(self) -> str:
        schema = f", schema={self._schema!r}" if self._schema else ""
        return f"PostgresqlProvider({self._address.display!r}{schema})"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        if self._open is not None:
            self._open.pools.guard.require_own_process()
            return
        pools = self._new_pools()
        rows = Rows(await _first_call(pools, self._prepare, idempotent=False), PAGE, PAGE_BYTES)
        with self._lock:
            if first := self._open is None:
                self._open = _Open(pools, rows)
        if not first:
            await pools.close()

    async def _prepare(self, connection: Connection) -> str:
        durable = self._limits.durability is Durability.DISK
        database = self._address.display
        return await prepare(connection, database, schema=self._schema, migrate=self._migrate, durable=durable)

    async def stop(self) -> None:
        with self._lock:
            open_, self._open = self._open, None
        if open_ is not None:
            await open_.pools.close()

    async def migration(self) -> tuple[str, ...]:
        """Return the statements that :meth:`start` would run first to make or upgrade the tables.

        They begin with ``BEGIN`` and end with ``COMMIT``. There are no statements if the tables are up to date. This
        changes nothing.

        :raises SessionHistoryError: as :meth:`start`.
        """
        pools = self._new_pools()
        work = partial(examine, database=self._address.display, schema=self._schema)
        installed = await _first_call(pools, work, idempotent=True)
        await pools.close()
        return installed.script

    def _new_pools(self) -> LoopLocal[Pool]:
        return LoopLocal(self._address.display, self._new_pool, close_timeout=self._close_timeout)

    async def health(self) -> bool:
        try:
            return await self._run(self._check_health)
        except Exception:
            return False

    async def _check_health(self, rows: Rows, connection: Connection) -> bool:
        """Return whether the server answers and takes writes.

        :raises StoreFull: its disk was full at the last write, and still is.
        """
        if self._was_full:
            await rows.require_room(connection)
            self._was_full = False
        return await rows.takes_writes(connection)

    def ability(self, kind: object) -> object | None:
        return self if kind in (Users, Restorable) else None

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        return await self._run(lambda rows, connection: rows.info(connection, shard))

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        return await self._run(lambda rows, connection: rows.read(connection, key, last, before, after, entry_id))

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        self._check(entry, snapshot, at)
        return await self._run(lambda rows, connection: rows.append(connection, key, entry, at, tail_origin, snapshot))

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        return await self._run(lambda rows, connection: rows.renew(connection, key, at, tail_origin))

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        self._check(entry, snapshot)
        check_origin("rewrite_id", rewrite_id)
        return await self._run(
            lambda rows, connection: rows.rewrite(connection, key, entry, at, rewrite_id, last_rewrite_id, snapshot)
        )

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        after = _decoded(cursor)
        return await self._run(lambda rows, connection: rows.listing.sessions(connection, user_id, limit, after))

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        after = _decoded(cursor)
        return await self._run(lambda rows, connection: rows.listing.tombstones(connection, user_id, limit, after))

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        after = _decoded(cursor)
        return await self._run(lambda rows, connection: rows.listing.users(connection, limit, after))

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        check_restore(head, entries, behind)
        self._limits.check_restore(head, entries)
        for entry in entries:
            check_id(entry.id)
        return await self._run(
            lambda rows, connection: rows.restoration.restore(connection, head, entries, behind), idempotent=False
        )

    async def delete(self, key: SessionKey) -> bool:
        return await self._run(lambda rows, connection: rows.deletion.delete(connection, key), idempotent=False)

    async def delete_user(self, user_id: str) -> int:
        count = 0
        after: str | None = ""
        while after is not None:
            deleted, after = await self._delete_batch(user_id, after)
            count += deleted
        return count

    async def _delete_batch(self, user_id: str, after: str) -> tuple[int, str | None]:
        return await self._run(
            lambda rows, connection: rows.deletion.delete_batch(connection, user_id, after), idempotent=False
        )

    async def _run(self, call: Callable[[Rows, Connection], Awaitable[T]], *, idempotent: bool = True) -> T:
        """Run a call with a connection of this event loop.

        :param idempotent: two runs of the call have the effect and the result of one.
        """
        open_ = self._open
        if open_ is None:
            raise Unavailable(f"{self._address.display} is not open: the service was stopped, or never started")
        pool = await open_.pools.get()
        try:
            return await pool.run(partial(call, open_.rows), idempotent=idempotent)
        except StoreFull:
            self._was_full = True
            raise
        except ConfigurationError as error:  # The start found no such error, so the cause may pass.
            raise Unavailable(str(error)) from None

    def _check(self, entry: Entry, snapshot: Snapshot | None, at: Position | None = None) -> None:
        self._limits.check(entry, snapshot, at)
        check_id(entry.id)  # Keys are never too long.


class _Open(NamedTuple):
    """The state of a provider between start and stop."""

    pools: LoopLocal[Pool]
    rows: Rows


async def _first_call(pools: LoopLocal[Pool], call: Callable[[Connection], Awaitable[T]], *, idempotent: bool) -> T:
    """Run a call with new pools. If it fails, close them."""
    pool = await pools.get()
    try:
        return await pool.run(call, idempotent=idempotent)
    except asyncio.CancelledError:
        await pool.abort()  # A close would wait for the call, which goes on.
        raise
    except BaseException:
        await pools.close()
        raise


def _decoded(cursor: str | None) -> ListingCursor | None:
    return ListingCursor.decode(cursor) if cursor is not None else None


def _check_options(schema: object, pool_size: object, timeout: object, durability: object) -> None:
    if schema is not None and (
        not isinstance(schema, str) or "\0" in schema or not 0 < len(schema.encode()) <= NAME_BYTES
    ):
        raise ConfigurationError(f"schema must be a name of 1 to {NAME_BYTES} bytes")
    if type(pool_size) is not int or pool_size < 1:
        raise ConfigurationError("pool_size must be a whole number above 0")
    require_seconds("timeout", timeout)
    require_one_of("durability", durability, ("disk", "host"))


def _provider(options: PostgresqlOptions) -> PostgresqlProvider:
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
        yield ProviderSpec(scheme, PostgresqlOptions, _provider)
