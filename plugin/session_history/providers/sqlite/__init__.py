"""A store in one SQLite file, for any number of processes, threads and event loops of one host."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args
from urllib.parse import unquote

from pydantic import Field, field_validator

from session_history.providers.common.forks import ForkGuard
from session_history.providers.common.options import require_one_of, require_seconds
from session_history.providers.sqlite import rows, store, users
from session_history.providers.sqlite.access import ACCESS, Access, create, warn_of_others
from session_history.providers.sqlite.backup import Copy
from session_history.providers.sqlite.entries import MAX_SEQ
from session_history.providers.sqlite.openings import register, require_not_inherited, unregister
from session_history.providers.sqlite.probe import Probe
from session_history.providers.sqlite.reserve import Reserve
from session_history.providers.sqlite.threads import Reader, Writer
from session_history_hooks import (
    Appended,
    Backup,
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
    StoreReadOnly,
    Unavailable,
    UserPage,
    Users,
    check_origin,
    check_restore,
    hookimpl,
)

T = TypeVar("T")

Synchronous = Literal["FULL", "NORMAL"]

SYNCHRONOUS: tuple[str, ...] = get_args(Synchronous)

PAGE = 1000


class _Open(NamedTuple):
    writer: Writer
    reader: Reader
    probe: Probe
    reserve: Reserve


class SqliteProvider:
    """Keeps sessions in a SQLite file in WAL mode.

    :param path: the file. The provider creates it at the start, in a folder that must exist.
    :param synchronous: ``"FULL"`` = an acknowledged append survives a power cut. ``"NORMAL"`` = an acknowledged
        append survives the death of the process, but a power cut may take the newest appends. ``"NORMAL"`` needs no
        fsync per commit.
    :param busy_timeout: seconds to wait for other processes before a call raises ``Unavailable``.
    :param access: the users of this host that may read a file which the provider creates: its ``"owner"``, or the
        ``"group"``, too.

    Start the provider after a fork. Connections do not survive a fork, and a child cannot open a file that was open
    at the fork.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: float = 10.0,
        access: Access = "owner",
    ) -> None:
        _check_options(path, synchronous, busy_timeout)
        require_one_of("access", access, ACCESS)
        self._access = access
        self._path = Path(path).absolute()  # The working directory may change.
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._connections: _Open | None = None
        self._close: Callable[[], object] = lambda: None
        self._copies: set[Copy] = set()
        self._lock = threading.Lock()
        self._limits = Limits(
            # A round number far above any real turn and far below SQLite's own limit of 10**9.
            entry_bytes=64 * 2**20,
            summary_bytes=2**20,
            entries=MAX_SEQ,
            page=PAGE,
            page_bytes=64 * 2**20,
            remembered_ids=None,
            durability=Durability.DISK if synchronous == "FULL" else Durability.HOST,
            atomic_head=True,
        )

    def __repr__(self) -> str:
        return f"SqliteProvider({os.fspath(self._path)!r})"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    async def health(self) -> bool:
        try:
            return await self._read(self._check_health)
        except Exception:
            return False

    def ability(self, kind: object) -> object | None:
        return self if kind in (Users, Restorable, Backup) else None

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        info = await self._read(store.info)
        if shard is None or info.shard is not None:
            return info
        return await self._write(lambda connection: store.take(connection, shard))

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        if after is not None and last is None and before is None and entry_id is None:
            unchanged = self._running().probe.unchanged_since(key, after)
            if unchanged is not None:
                return unchanged
        return await self._read(
            lambda connection: rows.read(connection, key, self._limits, last, before, after, entry_id)
        )

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        return await self._write(lambda connection: rows.append(connection, key, entry, at, tail_origin, snapshot))

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        return await self._write(lambda connection: rows.renew(connection, key, at, tail_origin))

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
        self._limits.check(entry, snapshot)
        check_origin("rewrite_id", rewrite_id)
        return await self._write(
            lambda connection: rows.rewrite(connection, key, entry, at, rewrite_id, last_rewrite_id, snapshot),
            deletes=True,
        )

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        behind = ListingCursor.decode(cursor) if cursor is not None else None
        return await self._read(lambda connection: rows.list_heads(connection, user_id, min(limit, PAGE), behind))

    async def delete(self, key: SessionKey) -> bool:
        return await self._write(lambda connection: rows.delete(connection, key), deletes=True)

    async def delete_user(self, user_id: str) -> int:
        return await self._write(lambda connection: rows.delete_user(connection, user_id), deletes=True)

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        return await self._read(lambda connection: users.list_users(connection, min(limit, PAGE), cursor))

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await self._read(lambda connection: users.list_tombstones(connection, user_id, min(limit, PAGE), cursor))

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        check_restore(head, entries, behind)
        self._limits.check_restore(head, entries)
        return await self._write(lambda connection: rows.restore(connection, head, entries, behind))

    async def backup(self, path: str, *, overwrite: bool = False) -> None:
        target = _file_path(path).absolute()
        await self._read(store.info)  # The file is open in this process, and in its place.
        copy = Copy(self._path, target, overwrite=overwrite, timeout=self._busy_timeout)
        self._copies.add(copy)
        try:
            await copy.finished()
        finally:
            self._copies.discard(copy)

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._running().reader.submit(job)

    async def _write(self, job: Callable[[sqlite3.Connection], T], *, deletes: bool = False) -> T:
        return await self._running().writer.submit(job, deletes=deletes)

    def _running(self) -> _Open:
        if self._connections is None:
            raise Unavailable(f"{self._path} is not open: the service was stopped or not yet started")
        return self._connections

    def _start(self) -> None:
        with self._lock:
            if self._connections is None:
                self._connections = self._open()

    def _open(self) -> _Open:
        _check_path(self._path)
        create(self._path, self._access)
        warn_of_others(self._path)
        require_not_inherited(self._path)
        guard = ForkGuard(str(self._path))
        reserve = Reserve(self._path, self._access)
        with ExitStack() as stack:
            stack.callback(reserve.remove_if_closed)
            writer = Writer(
                self._path, guard, synchronous=self._synchronous, busy_timeout=self._busy_timeout, reserve=reserve
            )
            stack.callback(writer.close)  # The writer closes last, because the last connection empties the WAL.
            writer.wait_ready()
            reader = Reader(self._path, guard, writer.watch, busy_timeout=self._busy_timeout)
            stack.callback(reader.close)
            reader.wait_ready()
            probe = Probe(self._path, guard, writer.watch)
            stack.callback(probe.close)
            stack.callback(unregister, register(self._path, guard))
            reserve.keep()
            # The finalizer also closes a provider that is dropped without a stop, or at the end of the process.
            self._close = weakref.finalize(self, stack.pop_all().close)
        return _Open(writer, reader, probe, reserve)

    def _stop(self) -> None:
        with self._lock:
            self._connections = None
            for copy in list(self._copies):
                copy.stop()  # The writer closes last.
            self._close()

    def _check_health(self, connection: sqlite3.Connection) -> bool:
        """Return whether the threads live and the file is the opened one, because a deleted file loses its writes.

        :raises OSError: the disk is full.
        """
        connection.execute("SELECT log FROM head LIMIT 1").fetchone()
        running = self._running()
        running.reserve.require_room()
        running.reserve.keep()
        return running.writer.alive and running.writer.watch.in_place


def _file_path(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path)
    if not name or "\0" in name:
        raise ConfigurationError("path is empty or contains NUL")
    return Path(name)


def _check_options(path: str | os.PathLike[str], synchronous: object, busy_timeout: object) -> None:
    _file_path(path)
    name = os.fspath(path)
    if name == ":memory:":
        raise ConfigurationError("path :memory: would be another database for each connection: use memory:// instead")
    if "://" in name:
        raise ConfigurationError("path must be a path, not a URL: pass URLs to SessionHistoryService.from_url")
    require_one_of("synchronous", synchronous, SYNCHRONOUS)
    require_seconds("busy_timeout", busy_timeout)


def _check_path(path: Path) -> None:
    try:
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path} cannot be created: there is no folder {path.parent}; create it")
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be a file: {error.strerror}") from None
    if is_folder:
        raise ConfigurationError(f"{path} is a folder, not a file")
    if exists and not os.access(path, os.R_OK | os.W_OK):
        raise StoreReadOnly(f"{path} cannot be read or written: this user lacks the permission")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreReadOnly(
            f"{path} cannot be written: SQLite creates files in its folder, and this user may not write there"
        )


class SqliteOptions(ProviderOptions):
    """``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``, then ``?option=value``.

    See :class:`SqliteProvider` for the options.
    """

    synchronous: Synchronous = "FULL"
    busy_timeout: float = Field(default=10.0, gt=0)
    access: Access = "owner"

    @field_validator("synchronous", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _names_a_file(cls, url: str) -> str:
        if not url.startswith("sqlite:///") or not url.removeprefix("sqlite:///"):
            raise ValueError("names no file: write sqlite:///history.db or sqlite:////var/lib/history.db")
        if "#" in url:
            raise ValueError("must not have a fragment: write %23 for a # in the path")
        return url

    @property
    def path(self) -> str:
        return unquote(self.url.removeprefix("sqlite:///"))


def _open(options: SqliteOptions) -> SqliteProvider:
    return SqliteProvider(
        options.path,
        synchronous=options.synchronous,
        busy_timeout=options.busy_timeout,
        access=options.access,
    )


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("sqlite", SqliteOptions, _open)
