"""A store in Aliyun Tablestore (OTS): any number of processes and hosts, in one table of an instance."""

from __future__ import annotations

import asyncio
import builtins
import logging
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from tablestore import AsyncOTSClient

from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.client import create_client
from session_history.providers.tablestore.deleting import Deleting
from session_history.providers.tablestore.heads import Heads
from session_history.providers.tablestore.memory import Memory
from session_history.providers.tablestore.reading import PAGE, Reading
from session_history.providers.tablestore.table import Table
from session_history.providers.tablestore.thread import LoopThread
from session_history.providers.tablestore.writing import Writing
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
    SessionKey,
    Snapshot,
    Unavailable,
    hookimpl,
)

__all__ = ["TablestoreOptions", "TablestoreProvider", "create_client", "session_history_providers"]

LIMITS = Limits(
    # As SQLite's and far above any real turn; in 32 rows, since a row holds 2 MB.
    entry_bytes=64 * 2**20,
    summary_bytes=2**20,
    entries=keys.MAX_SEQ,
    page=PAGE,
    remembered_ids=rows.REMEMBERED_IDS,
    durability=Durability.DISK,
    atomic_head=False,
)


class _Open(NamedTuple):
    thread: LoopThread
    table: Table
    reading: Reading
    writing: Writing
    deleting: Deleting


class TablestoreProvider:
    """Keeps sessions in one table of Tablestore.

    :param client: an ``AsyncOTSClient`` that nobody else uses, see :func:`create_client`.
    :param table: its name. ``{table}_recent`` is the name of its index.
    :param create: whether a table that is missing is made when the provider starts.
    :param timeout: seconds that a request may take; a call goes on trying for 30 seconds.
    """

    def __init__(
        self, client: Any, *, table: str = "session_history", create: bool = True, timeout: float = 10.0
    ) -> None:
        if not isinstance(client, AsyncOTSClient):
            raise ConfigurationError(f"an AsyncOTSClient is needed, not {type(client).__name__}")
        _check_table(table)
        if not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise ConfigurationError("timeout must be a number of seconds above 0")
        if client.logger.level == logging.NOTSET:
            # The SDK would show all content to whoever logs on DEBUG, and make a text of each request for nobody else.
            client.logger.setLevel(logging.CRITICAL)
        self._table = Table(client, table, timeout)
        self._create = create
        self._opened: _Open | None = None
        self._close: Callable[[], object] = _nothing
        self._pid: int | None = None
        self._door = threading.Lock()

    def __repr__(self) -> str:
        return f"TablestoreProvider({self._table.name!r})"

    @property
    def limits(self) -> Limits:
        return LIMITS

    async def start(self) -> None:
        begun: builtins.list[Future[None]] = []
        try:
            await asyncio.to_thread(self._start, begun)
        except asyncio.CancelledError:
            for preparing in begun:
                preparing.cancel()  # else the process could not end before the table is there, which takes minutes
            raise

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    async def health(self) -> bool:
        try:
            opened = self._running()
            await opened.thread.run(opened.table.answers)
        except Exception:
            return False
        return True

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        opened = self._running()
        return await opened.thread.run(lambda: opened.reading.read(key, last, before, after, entry_id))

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)
        opened = self._running()
        return await opened.thread.finish(lambda: opened.writing.append(key, entry, at, snapshot))

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        opened = self._running()
        return await opened.thread.finish(lambda: opened.writing.renew(key, at))

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        LIMITS.check(entry, snapshot)
        opened = self._running()
        return await opened.thread.finish(lambda: opened.writing.rewrite(key, entry, at, rewrites, snapshot))

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        behind = ListingCursor.decode(cursor) if cursor is not None else None
        opened = self._running()
        return await opened.thread.run(lambda: opened.reading.listing(user_id, min(limit, PAGE), behind))

    async def delete(self, key: SessionKey) -> bool:
        opened = self._running()
        return await opened.thread.finish(lambda: opened.deleting.delete(key))

    async def delete_user(self, user_id: str) -> int:
        opened = self._running()
        return await opened.thread.finish(lambda: opened.deleting.delete_user(user_id))

    def _running(self) -> _Open:
        if self._opened is None:
            raise Unavailable("Tablestore is not open: the service was stopped, or never started")
        return self._opened

    def _start(self, begun: builtins.list[Future[None]]) -> None:
        with self._door:
            if self._opened is not None:
                return
            if self._pid not in (None, os.getpid()):
                raise Unavailable("its client was open when this process was forked: make another one, or spawn")
            self._pid = os.getpid()
            thread = LoopThread()
            close = weakref.finalize(self, thread.close, self._table.close)
            try:
                begun.append(thread.submit(lambda: self._table.prepare(create=self._create)))
                begun[0].result()
            except BaseException:
                close()
                raise
            memory = Memory()
            reading = Reading(self._table, memory)
            heads = Heads(self._table, reading, memory)
            writing, deleting = Writing(self._table, reading, heads, memory), Deleting(self._table, reading, heads)
            self._opened = _Open(thread, self._table, reading, writing, deleting)
            self._close = close  # also when the provider is dropped, or the process ends, without a stop

    def _stop(self) -> None:
        with self._door:
            self._opened = None
            self._close()


def _nothing() -> None:
    """What there is to close of a provider that was never started."""


def _check_table(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,246}", name):
        raise ConfigurationError(
            "table must be a name of letters, digits and _ that begins with no digit, of at most 247 characters"
        )


class TablestoreOptions(ProviderOptions):
    """``tablestore://instance.region.ots.aliyuncs.com?option=value``: the host is the end point of the instance.

    There are no options for credentials: a URL is logged too easily. They come from the environment, see
    :data:`~session_history.providers.tablestore.client.CREDENTIALS`.

    :ivar instance: needed if the host does not begin with it.
    :ivar region: signs requests with version 4 for this region.
    :ivar tls: ``false`` speaks HTTP, for a server on this host.
    """

    instance: str | None = Field(default=None, min_length=1)
    table: str = "session_history"
    region: str | None = Field(default=None, min_length=1)
    create: bool = True
    timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    tls: bool = True

    @field_validator("url")
    @classmethod
    def _names_an_end_point(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("credentials do not belong in a URL: set TABLESTORE_ACCESS_KEY_ID and …_SECRET")
        if not parts.netloc or parts.path not in {"", "/"} or parts.fragment:
            raise ValueError("names no end point: write tablestore://my-instance.cn-hangzhou.ots.aliyuncs.com")
        return url

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def instance_name(self) -> str:
        """:raises ConfigurationError: it is not given, and the host does not tell it."""
        if self.instance:
            return self.instance
        first, _, rest = self.host.partition(".")
        if not rest.partition(":")[0].endswith("aliyuncs.com"):
            raise ConfigurationError(
                "tablestore://: the host does not begin with an instance: give the option instance"
            )
        return first


def _open(options: TablestoreOptions) -> TablestoreProvider:
    scheme = "https" if options.tls else "http"
    client = create_client(f"{scheme}://{options.host}", options.instance_name, region=options.region)
    return TablestoreProvider(client, table=options.table, create=options.create, timeout=options.timeout)


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("tablestore", TablestoreOptions, _open)
