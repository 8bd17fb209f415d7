"""The database file: its ownership, its schema and its errors."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from session_history.providers.common.backoff import pauses
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
"""A mark in the header of each of our files: "session history log"."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE head (
            log             INTEGER PRIMARY KEY,
            user_id         TEXT NOT NULL,
            session_id      TEXT NOT NULL,
            generation      INTEGER NOT NULL,
            seq             INTEGER NOT NULL,
            tail_origin     TEXT NOT NULL,
            deleted         INTEGER NOT NULL,
            heartbeat       INTEGER NOT NULL,
            rewrite_id      TEXT NOT NULL,
            active_us       INTEGER NOT NULL,
            changed_us      INTEGER NOT NULL,
            snapshot_seq    INTEGER,
            snapshot_origin TEXT,
            summary         BLOB,
            UNIQUE (user_id, session_id)
        )""",
        "CREATE INDEX listing ON head (user_id, active_us DESC, session_id) WHERE deleted = 0",
        "CREATE INDEX tombstone ON head (user_id, session_id) WHERE deleted = 1",
        "CREATE INDEX unknown_state ON head (user_id) WHERE deleted NOT IN (0, 1)",  # finds damaged rows
        # The payload comes last: SQLite walks through a large value to reach the columns behind it.
        """CREATE TABLE entry (
            k           INTEGER PRIMARY KEY,
            id          TEXT NOT NULL,
            origin      TEXT NOT NULL,
            bookkeeping INTEGER NOT NULL,
            keys        TEXT,
            payload     BLOB NOT NULL
        )""",
        # The ids and the keys of a log are one namespace.
        """CREATE TABLE entry_id (
            log INTEGER NOT NULL,
            id  TEXT NOT NULL,
            seq INTEGER NOT NULL,
            PRIMARY KEY (log, id)
        ) WITHOUT ROWID""",
        "CREATE TABLE store (incarnation TEXT NOT NULL, shard_number INTEGER, shard_count INTEGER)",
        "INSERT INTO store (incarnation) VALUES (lower(hex(randomblob(12))))",
    ),
    ("CREATE TABLE wal_mark (mark BLOB NOT NULL)", "INSERT INTO wal_mark VALUES (zeroblob(40))"),
)
"""Statements from one schema version to the next. They only add, so that processes of an older version go on."""

_KINDS: dict[int, tuple[type[SessionHistoryError], str]] = {
    sqlite3.SQLITE_PERM: (StoreReadOnly, "cannot be opened: this user lacks the permission"),
    sqlite3.SQLITE_BUSY: (Unavailable, "is locked by another process; try again later"),
    sqlite3.SQLITE_LOCKED: (Unavailable, "is locked; try again later"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "cannot be written"),
    sqlite3.SQLITE_CORRUPT: (Corrupt, "is damaged"),
    sqlite3.SQLITE_FULL: (StoreFull, "cannot grow: the disk is full"),
    sqlite3.SQLITE_CANTOPEN: (
        Unavailable,
        "cannot be opened, or the files that SQLite needs next to it cannot be created",
    ),
    sqlite3.SQLITE_CONSTRAINT: (Corrupt, "holds entries behind the tail of their log, or one id twice"),
    sqlite3.SQLITE_TOOBIG: (Corrupt, "holds a value that is too large"),
    sqlite3.SQLITE_MISMATCH: (Corrupt, "holds a value of another type"),
    sqlite3.SQLITE_NOTADB: (IncompatibleStore, "is not a SQLite database"),
}


def translate(error: sqlite3.Error, path: Path) -> SessionHistoryError:
    """Return our error for an error of the driver. It names the file and SQLite's code."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if str(error).startswith(("no such table", "no such column")):
        return Corrupt(f"{path} lacks a table or a column of our schema ({name})")
    if is_undecodable(error):  # The driver's own text goes on with the value.
        return Corrupt(f"{path} holds text that is not UTF-8")
    kind, text = _KINDS.get(code & 0xFF, (Unavailable, "cannot be read or written"))
    return kind(f"{path} {text} ({name})")


def is_undecodable(error: sqlite3.Error) -> bool:
    """Tell whether a column of type text is not UTF-8."""
    return str(error).startswith("Could not decode")


def connect(path: Path, *, timeout: float, mode: str = "rwc", shared: bool = False) -> sqlite3.Connection:
    """Open the file in SQLite's mode ``mode``; ``"rwc"`` creates an empty file if none exists.

    :param timeout: seconds that a statement waits for a lock.
    :param shared: let other threads use the connection; the caller must let one use it at a time.
    """
    uri = f"file:{quote(os.fspath(path.absolute()))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=not shared)


def identity(path: Path) -> Identity:
    """:raises OSError: the file does not exist."""
    status = path.stat()
    return status.st_dev, status.st_ino


def wal_path(path: Path) -> Path:
    """Return the path of a file's WAL. Behind a symbolic link, it is next to the file that the link names."""
    path = path.resolve()
    return path.with_name(path.name + "-wal")


def examine(path: Path, busy_timeout: float) -> None:
    """Check that the file is ours or does not exist, before anything can write to it.

    The last connection to close a file moves the WAL into it, unless that connection is read-only. So a file that has
    a WAL is opened read-only: both may belong to another application.

    :raises IncompatibleStore: the file belongs to another application or a newer version.
    """
    if path.exists():
        mode = "ro" if wal_path(path).exists() else "rw"
        with closing(connect(path, timeout=busy_timeout, mode=mode)) as connection:
            _read_version(connection, path)


def prepare(connection: sqlite3.Connection, path: Path, *, synchronous: str, busy_timeout: float) -> None:
    """Bring the file to the newest schema and into WAL mode.

    Nothing is written before the file is known to be empty, or ours and not newer than this library.

    :param busy_timeout: seconds to wait for other processes.
    :raises IncompatibleStore: the file belongs to another application or a newer version.
    """
    if _read_version(connection, path) < len(MIGRATIONS):
        _migrate(connection, path, busy_timeout)
    _retry(connection, "PRAGMA journal_mode = WAL", busy_timeout)
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise ConfigurationError(f"{path} is on a file system without SQLite's WAL mode; put it on a local disk")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    _require_writable(connection, busy_timeout)
    connection.execute("PRAGMA busy_timeout = 0")  # From here on, begin() waits instead of SQLite.


def begin(connection: sqlite3.Connection, busy_timeout: float) -> bool:
    """Take the write lock. Return whether another process held it.

    SQLite's own waiting has fixed steps of up to 100 ms, which miss the short gaps of a busy process. Short steps of
    random length find such a gap.
    """
    return _retry(connection, "BEGIN IMMEDIATE", busy_timeout)


def rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _require_writable(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Write something and roll it back, because SQLite grants the write lock of a read-only file too."""
    begin(connection, busy_timeout)
    try:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    finally:
        rollback(connection)


def _retry(connection: sqlite3.Connection, statement: str, busy_timeout: float) -> bool:
    """Run a statement, again while the file is locked. Return whether the file was locked."""
    deadline = time.monotonic() + busy_timeout
    waits = pauses(first=0.0005, longest=0.004, growth=1.5)
    locked = False
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return locked
        locked = True
        time.sleep(next(waits))


def _read_version(connection: sqlite3.Connection, path: Path) -> int:
    connection.execute("BEGIN")  # All reads see one moment, while another process may be creating the schema.
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
        raise IncompatibleStore(f"{path} is a SQLite database of another application; choose another file")
    if version < 1:
        raise Corrupt(f"{path} has our application id, but {version} is not a schema version")
    if version > len(MIGRATIONS):
        raise IncompatibleStore(
            f"{path} has schema version {version}; this version of session-history supports up to {len(MIGRATIONS)}."
            " Upgrade it."
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path, busy_timeout: float) -> None:
    begin(connection, busy_timeout)
    try:
        # The version is read again under the lock, because another process may have migrated meanwhile.
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
