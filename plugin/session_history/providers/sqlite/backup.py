"""Copies of the file while it is in use."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from session_history.providers.sqlite import marks
from session_history.providers.sqlite.access import DENIED
from session_history.providers.sqlite.file import connect, translate
from session_history_hooks import (
    BackupExists,
    ConfigurationError,
    SessionHistoryError,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)

_STEPS = 10_000
"""Steps of SQLite's machine, a few milliseconds, between two looks whether to stop."""

_OF_SOURCE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
"""Errors about the file that is read. Others are about the copy."""


class Copy:
    """One copy, made by a thread of its own. It begins with its construction.

    ``VACUUM INTO`` reads one snapshot, so that writers go on, and leaves deleted bytes behind.
    """

    def __init__(self, path: Path, target: Path, *, overwrite: bool, timeout: float) -> None:
        self._path = path
        self._target = target
        self._overwrite = overwrite
        self._timeout = timeout
        self._stopped = False
        executor = ThreadPoolExecutor(1, "session-history Copy")
        self._future: Future[None] = executor.submit(self._make)
        executor.shutdown(wait=False)

    async def finished(self) -> None:
        """Wait for the copy. If this is cancelled, nothing is left of the copy."""
        made = asyncio.wrap_future(self._future)
        try:
            await asyncio.shield(made)
        except asyncio.CancelledError:
            self._stopped = True
            while not made.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([made])
            made.exception()
            raise

    def stop(self) -> None:
        """Give the copy up. Block until nothing is left of it."""
        self._stopped = True
        wait([self._future])

    def _make(self) -> None:
        self._check_target()
        with self._translated(), self._temporary() as temporary:
            vacuum(self._path, temporary, timeout=self._timeout, stopped=lambda: self._stopped)
            _make_own_store(temporary)
            _sync(temporary)
            self._publish(temporary)
            _sync(self._target.parent)

    def _check_target(self) -> None:
        target = self._target
        try:
            if not target.parent.is_dir():
                raise ConfigurationError(f"{target} cannot be created: there is no folder {target.parent}; create it")
            if target.is_dir():
                raise ConfigurationError(f"{target} is a folder, not a file")
            files = [target, *(target.with_name(target.name + end) for end in ("-wal", "-journal"))]
            found = [file for file in files if file.exists()]
            own = {self._path.resolve().with_name(self._path.resolve().name + end) for end in ("", "-wal", "-shm")}
        except OSError as error:
            raise ConfigurationError(f"{target} cannot be a file: {error.strerror}") from None
        if target.resolve() in own:
            raise ConfigurationError(f"{target} is a file of the store itself; choose another one for the backup")
        if found == [target] and self._overwrite:
            return
        if found:
            remedy = "choose another name" if found[-1] != target else "choose another name, or pass overwrite=True"
            raise BackupExists(f"{found[-1]} exists; {remedy}")

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Create an empty file next to the target, with the mode of the database, and remove it at the end."""
        temporary = self._target.with_name(f".{self._target.name}.{secrets.token_hex(8)}.tmp")
        created = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            if os.name == "posix":
                os.fchmod(created, stat.S_IMODE(self._path.stat().st_mode))
            os.close(created)
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _publish(self, temporary: Path) -> None:
        """Give the copy its name, in one step."""
        if self._overwrite:
            temporary.replace(self._target)
            return
        try:
            os.link(temporary, self._target)
        except OSError as error:
            if error.errno == errno.EEXIST or os.path.lexists(self._target):
                raise BackupExists(f"{self._target} exists; choose another name, or pass overwrite=True") from None
            temporary.rename(self._target)  # A file system without hard links.

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from None  # The driver's own text may show content.
        except OSError as error:
            if isinstance(error, SessionHistoryError):
                raise
            kind = StoreReadOnly if error.errno in DENIED else StoreFull if error.errno == errno.ENOSPC else Unavailable
            raise kind(f"{self._target} cannot be written: {error.strerror}") from None

    def _error(self, error: sqlite3.Error) -> SessionHistoryError:
        if self._stopped:
            return Unavailable(f"{self._path} was closed while it was copied")
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
        return translate(error, self._path if code & 0xFF in _OF_SOURCE else self._target)


def vacuum(path: Path, target: Path, *, timeout: float, stopped: Callable[[], bool]) -> None:
    """Copy one snapshot of a file to an empty file, unless ``stopped`` becomes true meanwhile.

    :raises sqlite3.OperationalError: it was stopped, or SQLite's own errors.
    """
    # The last connection to close a file moves the WAL into it, unless that connection is read-only.
    with closing(connect(path, timeout=timeout, mode="ro")) as connection:
        connection.set_progress_handler(stopped, _STEPS)
        connection.execute("VACUUM INTO ?", (os.fspath(target),))
    if stopped():
        raise sqlite3.OperationalError("interrupted")


def _make_own_store(path: Path) -> None:
    """Give a copy an incarnation and a mark of its own: it is another store, and no WAL belongs to it."""
    with closing(connect(path, timeout=0, mode="rw")) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # Nobody else sees the file yet.
        connection.execute("UPDATE store SET incarnation = lower(hex(randomblob(12)))")
        token = marks.new_token()
        marks.write(connection, marks.UNMARKED._replace(token=token, base=token))


def _sync(path: Path) -> None:
    """Let a file or a folder reach the disk."""
    if path.is_dir() and os.name != "posix":
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
