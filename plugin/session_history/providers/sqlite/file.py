"""The database file: whose it is, its schema, and what its errors mean."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from session_history_hooks import (
    ConfigurationError,
    Corrupt,
    IncompatibleStore,
    SessionHistoryError,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)

Identity = tuple[int, int]
"""Device and inode of a file."""

APPLICATION_ID = int.from_bytes(b"SHLG")
"""Marks the file as ours in its header: "session history log"."""

SEQ_BITS = 24
"""An entry's key is ``log << SEQ_BITS | seq``: 2**24 - 1 entries in a log, 2**39 logs in a file.

A packed integer key keeps a session's entries side by side in a plain table, which loads faster than any
index would.
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE head (
            log        INTEGER PRIMARY KEY,
            user_id    TEXT NOT NULL,
            session_id TEXT NOT NULL,
            generation INTEGER NOT NULL,
            seq        INTEGER NOT NULL,
            tail_id    TEXT NOT NULL,
            deleted    INTEGER NOT NULL,
            heartbeat       INTEGER NOT NULL,
            rewrites      INTEGER NOT NULL,
            active_us  INTEGER NOT NULL,
            snapshot_seq   INTEGER,
            snapshot_id    TEXT,
            summary       BLOB,
            UNIQUE (user_id, session_id)
        )""",
        "CREATE INDEX listing ON head (user_id, active_us DESC, session_id) WHERE deleted = 0",
        "CREATE TABLE entry (k INTEGER PRIMARY KEY, id TEXT NOT NULL, payload BLOB NOT NULL)",
        f"CREATE UNIQUE INDEX entry_id ON entry (k >> {SEQ_BITS}, id)",
    ),
)
"""Statements that lead from one schema version to the next. They only add, so that an older process can go on."""

_KINDS: dict[int, tuple[type[SessionHistoryError], str]] = {
    sqlite3.SQLITE_PERM: (StoreReadOnly, "may not be opened"),
    sqlite3.SQLITE_BUSY: (Unavailable, "is locked by another process"),
    sqlite3.SQLITE_LOCKED: (Unavailable, "is locked"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "can not be written"),
    sqlite3.SQLITE_CORRUPT: (Corrupt, "is damaged"),
    sqlite3.SQLITE_FULL: (StoreFull, "has no room: the disk is full"),
    sqlite3.SQLITE_CANTOPEN: (Unavailable, "can not be opened, or files beside it can not be made"),
    sqlite3.SQLITE_NOTADB: (IncompatibleStore, "is not a SQLite database"),
}


def translate(error: sqlite3.Error, path: Path) -> SessionHistoryError:
    """Our error for one of the driver's, naming the file and SQLite's own code."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if str(error).startswith(("no such table", "no such column")):
        return Corrupt(f"{path} has lost a table or a column of ours ({name})")
    if str(error).startswith("Could not decode"):  # without the value, which the driver's own text goes on with
        return Corrupt(f"{path} holds text that is not UTF-8")
    kind, text = _KINDS.get(code & 0xFF, (Unavailable, "can not be read or written"))
    return kind(f"{path} {text} ({name})")


def connect(path: Path, *, timeout: float, mode: str = "rwc", shared: bool = False) -> sqlite3.Connection:
    """Open the file, making an empty one if there is none; the thread that calls owns the connection.

    :param timeout: seconds a statement waits for a lock.
    :param mode: SQLite's open mode.
    :param shared: threads may take turns at it; the caller makes sure that they do.
    """
    uri = f"file:{quote(os.fspath(path.absolute()))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=not shared)


def identity(path: Path) -> Identity:
    """:raises OSError: there is no file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def examine(path: Path, patience: float) -> None:
    """Make sure that the file is ours, or that there is none, before anything may write to it.

    The last connection to close a file moves its WAL into it. A WAL that is not ours is left alone: a
    connection that only reads does not do that.

    :raises IncompatibleStore: it is another application's, or a newer version's.
    """
    path = path.resolve()  # the WAL is beside the file that a link leads to
    if path.exists():
        mode = "ro" if path.with_name(path.name + "-wal").exists() else "rw"
        with closing(connect(path, timeout=patience, mode=mode)) as connection:
            _seen_version(connection, path)


def prepare(connection: sqlite3.Connection, path: Path, *, synchronous: str, patience: float) -> None:
    """Make the file ours, at the newest schema, and ready for several processes.

    Nothing is written before it is clear that the file is empty or ours and not newer than we are.

    :param patience: seconds to wait for other processes.
    :raises IncompatibleStore: it is neither.
    """
    if _seen_version(connection, path) < len(MIGRATIONS):
        _migrate(connection, path, patience)
    _insist(connection, "PRAGMA journal_mode = WAL", patience)
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise ConfigurationError(f"{path} is on a file system that can not do SQLite's WAL mode")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    _insist_writable(connection, patience)
    connection.execute("PRAGMA busy_timeout = 0")  # from here on, begin does the waiting


def begin(connection: sqlite3.Connection, patience: float) -> bool:
    """Take the write lock; say whether another process was in the way.

    SQLite's own waiting has fixed steps of up to 100 ms, in which a busy neighbour is never met idle.
    Short steps of random length do meet it.
    """
    return _insist(connection, "BEGIN IMMEDIATE", patience)


def rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _insist_writable(connection: sqlite3.Connection, patience: float) -> None:
    """Write something and take it back: a file that can only be read grants even the write lock."""
    begin(connection, patience)
    try:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    finally:
        rollback(connection)


def _insist(connection: sqlite3.Connection, statement: str, patience: float) -> bool:
    deadline = time.monotonic() + patience
    step = 0.0005
    waited = False
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return waited
        waited = True
        time.sleep(random.uniform(0.2, 1) * step)
        step = min(step * 1.5, 0.004)


def _seen_version(connection: sqlite3.Connection, path: Path) -> int:
    connection.execute("BEGIN")  # so that all is read of one moment: another process may be making the schema
    try:
        return _version(connection, path)
    finally:
        rollback(connection)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    application_id = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not application_id and not version and not tables:
        return 0
    if application_id != APPLICATION_ID:
        raise IncompatibleStore(f"{path} is a SQLite database of another application")
    if version < 1:
        raise Corrupt(f"{path} is marked as ours and has no schema version of ours")
    if version > len(MIGRATIONS):
        raise IncompatibleStore(
            f"{path} has schema version {version}; this version of session-history knows {len(MIGRATIONS)}. Upgrade it."
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path, patience: float) -> None:
    begin(connection, patience)
    try:
        # Looked at again under the lock: another process may have been faster.
        for statements in MIGRATIONS[_version(connection, path) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        rollback(connection)
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
