"""A provider for Aliyun Tablestore (OTS). Any number of processes and hosts share one table of an instance."""

from __future__ import annotations

import asyncio
import builtins
import logging
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from tablestore import AsyncOTSClient

from session_history.providers.common.forks import ForkGuard
from session_history.providers.common.options import require_seconds
from session_history.providers.tablestore import keys
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.client import create_client
from session_history.providers.tablestore.deleter import Deleter
from session_history.providers.tablestore.digests import REMEMBERED_IDS
from session_history.providers.tablestore.heads import Heads
from session_history.providers.tablestore.identity import identify
from session_history.providers.tablestore.reader import PAGE, PAGE_BYTES, Reader
from session_history.providers.tablestore.restorer import Restorer
from session_history.providers.tablestore.rewriter import Rewriter
from session_history.providers.tablestore.staging import Staging
from session_history.providers.tablestore.table import Table
from session_history.providers.tablestore.thread import LoopThread
from session_history.providers.tablestore.users import Walks
from session_history.providers.tablestore.writer import Writer
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
    ProviderOptions,
    ProviderSpec,
    Restorable,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    UserPage,
    Users,
    check_origin,
    check_restore,
    hookimpl,
)

__all__ = ["TablestoreOptions", "TablestoreProvider", "create_client", "session_history_providers"]

LIMITS = Limits(
    # The same as on SQLite and far above any real turn. It takes 32 rows, because a row holds 2 MB.
    entry_bytes=64 * 2**20,
    summary_bytes=2**20,
    entries=keys.MAX_SEQ,
    page=PAGE,
    page_bytes=PAGE_BYTES,
    remembered_ids=REMEMBERED_IDS,
    durability=Durability.DISK,
    atomic_head=False,
)


class _Running(NamedTuple):
    """The parts of a provider that was started."""

    thread: LoopThread
    table: Table
    reader: Reader
    writer: Writer
    rewriter: Rewriter
    restorer: Restorer
    deleter: Deleter
    walks: Walks


def _parts(thread: LoopThread, table: Table) -> _Running:
    cache, chunks = StateCache(), ChunkStore(table)
    reader = Reader(table, chunks, cache)
    heads, staging = Heads(table, reader, cache), Staging(table, reader, chunks)
    return _Running(
        thread,
        table,
        reader,
        Writer(table, reader, heads, chunks, staging, cache),
        Rewriter(table, reader, heads, chunks),
        Restorer(reader, heads, chunks, staging),
        Deleter(table, reader, heads, staging),
        Walks(table),
    )


class TablestoreProvider:
    """Stores sessions in one table of Tablestore.

    :param client: an ``AsyncOTSClient`` that nothing else uses, see :func:`session_history.create_tablestore_client`.
    :param table: the name of the table. Its index is called ``{table}_recent``.
    :param create: if true, a missing table is created when the provider starts.
    :param timeout: the seconds that a request may take. A call repeats failed requests for 30 seconds.
    """

    def __init__(
        self, client: Any, *, table: str = "session_history", create: bool = True, timeout: float = 10.0
    ) -> None:
        if not isinstance(client, AsyncOTSClient):
            raise ConfigurationError(f"client must be an AsyncOTSClient, not {type(client).__name__}")
        _require_table_name(table)
        require_seconds("timeout", timeout)
        if client.logger.level == logging.NOTSET:
            # On level DEBUG the SDK logs whole requests, content included, and formats them even if nothing reads them.
            client.logger.setLevel(logging.CRITICAL)
        self._table = Table(client, table, timeout)
        self._create = create
        self._running: _Running | None = None
        self._close: Callable[[], object] = _do_nothing
        self._guard: ForkGuard | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TablestoreProvider({self._table.name!r})"

    @property
    def limits(self) -> Limits:
        return LIMITS

    async def start(self) -> None:
        preparations: builtins.list[Future[None]] = []
        try:
            await asyncio.to_thread(self._start, preparations)
        except asyncio.CancelledError:
            for preparation in preparations:
                preparation.cancel()  # otherwise the process would wait for a new table, which takes minutes
            raise

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    async def health(self) -> bool:
        try:
            running = self._require_running()
            await running.thread.run(running.table.ping)
        except Exception:
            return False
        return True

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        running = self._require_running()
        return await running.thread.finish(lambda: identify(running.table, shard))

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        running = self._require_running()
        return await running.thread.run(lambda: running.reader.read(key, last, before, after, entry_id))

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)
        running = self._require_running()
        return await running.thread.finish(lambda: running.writer.append(key, entry, at, tail_origin, snapshot))

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        running = self._require_running()
        return await running.thread.finish(lambda: running.writer.renew(key, at, tail_origin))

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
        LIMITS.check(entry, snapshot)
        check_origin("rewrite_id", rewrite_id)
        running = self._require_running()
        return await running.thread.finish(
            lambda: running.rewriter.rewrite(key, entry, at, rewrite_id, last_rewrite_id, snapshot)
        )

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        after = _decoded(cursor)
        running = self._require_running()
        return await running.thread.run(lambda: running.reader.listing(user_id, min(limit, PAGE), after))

    async def delete(self, key: SessionKey) -> bool:
        running = self._require_running()
        return await running.thread.finish(lambda: running.deleter.delete(key))

    async def delete_user(self, user_id: str) -> int:
        running = self._require_running()
        return await running.thread.finish(lambda: running.deleter.delete_user(user_id))

    # Abilities

    def ability(self, kind: object) -> object | None:
        return self if kind in (Users, Restorable) else None

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        after = _decoded(cursor)
        running = self._require_running()
        return await running.thread.run(lambda: running.walks.users(limit, after))

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        after = _decoded(cursor)
        running = self._require_running()
        return await running.thread.run(lambda: running.walks.tombstones(user_id, limit, after))

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        check_restore(head, entries, behind)
        LIMITS.check_restore(head, entries)
        running = self._require_running()
        return await running.thread.finish(lambda: running.restorer.restore(head, entries, behind))

    def _require_running(self) -> _Running:
        if self._running is None:
            raise Unavailable("Tablestore is not open: the service was stopped, or it was never started")
        return self._running

    def _start(self, preparations: builtins.list[Future[None]]) -> None:
        with self._lock:
            if self._running is not None:
                return
            if self._guard is None:
                self._guard = ForkGuard("Tablestore")
            self._guard.require_own_process()
            thread = LoopThread(self._guard)
            close = weakref.finalize(self, thread.close, self._table.close)
            try:
                preparations.append(thread.submit(self._prepare))
                preparations[0].result()
            except BaseException:
                close()
                raise
            self._running = _parts(thread, self._table)
            self._close = close  # runs also if the provider is dropped, or the process ends, without a stop

    async def _prepare(self) -> None:
        await self._table.prepare(create=self._create)
        await identify(self._table)

    def _stop(self) -> None:
        with self._lock:
            self._running = None
            self._close()


def _decoded(cursor: str | None) -> ListingCursor | None:
    return ListingCursor.decode(cursor) if cursor is not None else None


def _do_nothing() -> None:
    """Close a provider that was never started."""


def _require_table_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,246}", name):
        raise ConfigurationError(
            "table must be a name of at most 247 letters, digits and underscores that does not begin with a digit"
        )


class TablestoreOptions(ProviderOptions):
    """Options of ``tablestore://instance.region.ots.aliyuncs.com?option=value``. The host is the end point.

    No option takes credentials, because URLs are often logged. Credentials come from the environment, see
    :data:`~session_history.providers.tablestore.client.CREDENTIALS`.

    :ivar instance: the name of the instance. It is required if the host does not begin with it.
    :ivar region: requests are signed with version 4 for this region.
    :ivar tls: if false, requests use HTTP, for a server on this host.
    """

    instance: str | None = Field(default=None, min_length=1)
    table: str = "session_history"
    region: str | None = Field(default=None, min_length=1)
    create: bool = True
    timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    tls: bool = True

    @field_validator("url")
    @classmethod
    def _require_end_point(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError(
                "credentials do not belong in a URL; set TABLESTORE_ACCESS_KEY_ID and TABLESTORE_ACCESS_KEY_SECRET"
            )
        if not parts.netloc or parts.path not in {"", "/"} or parts.fragment:
            raise ValueError("the URL names no end point; write tablestore://my-instance.cn-hangzhou.ots.aliyuncs.com")
        return url

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def instance_name(self) -> str:
        """The name of the instance.

        :raises ConfigurationError: the option is missing, and the host does not begin with the name.
        """
        if self.instance:
            return self.instance
        first, _, rest = self.host.partition(".")
        if not rest.partition(":")[0].endswith("aliyuncs.com"):
            raise ConfigurationError(
                "tablestore://: the host does not begin with the name of an instance; set the option instance"
            )
        return first


def _open(options: TablestoreOptions) -> TablestoreProvider:
    scheme = "https" if options.tls else "http"
    client = create_client(f"{scheme}://{options.host}", options.instance_name, region=options.region)
    return TablestoreProvider(client, table=options.table, create=options.create, timeout=options.timeout)


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("tablestore", TablestoreOptions, _open)
