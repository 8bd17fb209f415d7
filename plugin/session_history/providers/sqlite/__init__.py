"""A store in one SQLite file, for one host: any number of processes, threads and event loops."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from pydantic import Field, field_validator

from session_history.providers.sqlite import rows
from session_history.providers.sqlite.file import Identity, identity
from session_history.providers.sqlite.probe import Probe
from session_history.providers.sqlite.threads import Reader, Writer
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
    StoreReadOnly,
    Unavailable,
    hookimpl,
)

T = TypeVar("T")

Opening = tuple[Identity, int, object]

_OPEN: set[Opening] = set()
"""What is open: device and inode of a file, the process, and a mark that tells one opening from another.

A child of a fork inherits this, and SQLite's own book-keeping of the locks that its parent holds. It would believe to
hold them too, and lose what it writes. So a process may not open a file that it inherited open.
"""

Synchronous = Literal["FULL", "NORMAL"]

PAGE = 1000


class _Open(NamedTuple):
    writer: Writer
    reader: Reader
    probe: Probe


class SqliteProvider:
    """Keeps sessions in a SQLite file in WAL mode.

    :param path: the file; it is made when the provider starts, its folder is not.
    :param synchronous: ``"FULL"`` = an acknowledged append survives a power cut; ``"NORMAL"`` = it survives
        the death of the process, and a power cut may take the newest appends. NORMAL needs no fsync per commit.
    :param busy_timeout: seconds to wait for other processes before the store counts as unavailable.

    Connections do not survive a fork, and a file that was open at a fork can not be opened by the child: start
    the provider after the fork.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL", busy_timeout: float = 10.0
    ) -> None:
        _check_options(path, synchronous, busy_timeout)
        self._path = Path(path).absolute()  # of now: the working directory may change
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._connections: _Open | None = None
        self._close: Callable[[], object] = _nothing
        self._door = threading.Lock()
        self._limits = Limits(
            # A round figure far above any real turn and far below SQLite's own 10**9.
            entry_bytes=64 * 2**20,
            summary_bytes=2**20,
            entries=rows.MAX_SEQ,
            page=PAGE,
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
            return await self._read(self._answers)
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
        if after is not None and last is None and before is None and entry_id is None:
            known = self._running().probe.nothing_behind(key, after)
            if known is not None:
                return known
        return await self._read(
            lambda connection: rows.read(connection, key, PAGE, last, before, after, entry_id),
        )

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        return await self._write(lambda connection: rows.append(connection, key, entry, at, snapshot))

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        return await self._write(lambda connection: rows.renew(connection, key, at))

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        self._limits.check(entry, snapshot)
        return await self._write(lambda connection: rows.rewrite(connection, key, entry, at, rewrites, snapshot))

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        behind = ListingCursor.decode(cursor) if cursor is not None else None
        return await self._read(lambda connection: rows.list_heads(connection, user_id, min(limit, PAGE), behind))

    async def delete(self, key: SessionKey) -> bool:
        return await self._write(lambda connection: rows.delete(connection, key))

    async def delete_user(self, user_id: str) -> int:
        return await self._write(lambda connection: rows.delete_user(connection, user_id))

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._running().reader.submit(job)

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._running().writer.submit(job)

    def _running(self) -> _Open:
        if self._connections is None:
            raise Unavailable(f"{self._path} is not open: the service was stopped, or never started")
        return self._connections

    def _start(self) -> None:
        with self._door:
            if self._connections is None:
                self._connections = self._open()

    def _open(self) -> _Open:
        _check_place(self._path)
        if self._path.exists() and _inherited(identity(self._path)):
            raise Unavailable(f"{self._path} was open when this process was forked; open it after the fork, or spawn")
        with ExitStack() as stack:
            writer = Writer(self._path, synchronous=self._synchronous, patience=self._busy_timeout)
            stack.callback(writer.close)  # the last to close moves the WAL into the file
            writer.wait_ready()
            reader = Reader(self._path, patience=self._busy_timeout)
            stack.callback(reader.close)
            reader.wait_ready()
            probe = Probe(self._path)
            stack.callback(probe.close)
            stack.callback(_forget, _remembered(self._path))
            # Also when the provider is dropped, or the process ends, without a stop.
            self._close = weakref.finalize(self, stack.pop_all().close)
        return _Open(writer, reader, probe)

    def _stop(self) -> None:
        with self._door:
            self._connections = None
            self._close()

    def _answers(self, connection: sqlite3.Connection) -> bool:
        """Whether the threads live and the file is the one that was opened: a deleted one loses what it takes."""
        connection.execute("SELECT log FROM head LIMIT 1").fetchone()
        writer = self._running().writer
        return writer.alive and writer.still_there


def _check_options(path: object, synchronous: object, busy_timeout: object) -> None:
    name = os.fspath(path)  # type: ignore[call-overload]
    if not name or "\0" in name:
        raise ConfigurationError("the path is empty or contains NUL")
    if name == ":memory:":
        raise ConfigurationError("SQLite in memory is forgotten with each connection: use memory:// instead")
    if "://" in name:
        raise ConfigurationError("a path is needed, not a URL: SessionHistoryService.from_url takes URLs")
    if synchronous not in ("FULL", "NORMAL"):
        raise ConfigurationError("synchronous must be 'FULL' or 'NORMAL'")
    if not isinstance(busy_timeout, (int, float)) or not 0 < busy_timeout < float("inf"):
        raise ConfigurationError("busy_timeout must be a number of seconds above 0")


def _check_place(path: Path) -> None:
    try:
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path} can not be made: there is no folder {path.parent}")
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise ConfigurationError(f"{path} can not be a file: {error.strerror}") from None
    if is_folder:
        raise ConfigurationError(f"{path} is a folder, not a file")
    if exists and not os.access(path, os.R_OK | os.W_OK):
        raise StoreReadOnly(f"{path} can not be read or written: this user may not")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreReadOnly(f"{path} can not be written: SQLite makes files in its folder, which may not be written")


def _inherited(identity: Identity) -> bool:
    """Whether another process, which this one is a fork of, had the file open."""
    return any(file == identity and process != os.getpid() for file, process, _ in list(_OPEN))


def _remembered(path: Path) -> Opening:
    opening = identity(path), os.getpid(), object()
    _OPEN.add(opening)
    return opening


def _forget(opening: Opening) -> None:
    if opening[1] == os.getpid():
        _OPEN.discard(opening)


def _nothing() -> None:
    """What there is to forget of a provider that was never started."""


class SqliteOptions(ProviderOptions):
    """``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``, then ``?option=value``.

    See :class:`SqliteProvider` for the options.
    """

    synchronous: Synchronous = "FULL"
    busy_timeout: float = Field(default=10.0, gt=0)

    @field_validator("synchronous", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _names_a_file(cls, url: str) -> str:
        if not url.startswith("sqlite:///") or not url.removeprefix("sqlite:///"):
            raise ValueError("names no file: write sqlite:///history.db, or sqlite:////var/lib/history.db")
        if "#" in url:
            raise ValueError("has a fragment: write %23 for a # in the path")
        return url

    @property
    def path(self) -> str:
        return unquote(self.url.removeprefix("sqlite:///"))


def _open(options: SqliteOptions) -> SqliteProvider:
    return SqliteProvider(options.path, synchronous=options.synchronous, busy_timeout=options.busy_timeout)


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("sqlite", SqliteOptions, _open)
