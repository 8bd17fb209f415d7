"""Marks, by which a start finds out whether a WAL belongs to the database file next to it.

SQLite moves any valid WAL that it finds next to a file into that file, also if somebody has put another file there
since. The result is neither the old database nor the new one. So the file has a mark, a row that changes with each
start and each time that SQLite restarts the WAL:

1. A new token is written. It names the token before it as its *base*: the one that the file itself holds, without
   its WAL.
2. A checkpoint moves the new token into the file.
3. The mark is written once more, as *confirmed*: the file itself holds this token. This mark stays in the WAL only.

A WAL with a confirmed mark belongs to no file with an older token, and to none with the token of another file. A copy
that SQLite made of the whole database has the newest mark, but another schema cookie than the file.
"""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import time
import zlib
from contextlib import suppress
from typing import NamedTuple, Self

from session_history.providers.sqlite.file import begin, rollback
from session_history.providers.sqlite.watch import FileWatch

_LAYOUT = struct.Struct(">8s8s8s8sI")
_CHECKSUM = struct.Struct(">I")
_MAGIC = b"WAL mark"

SIZE: int = _LAYOUT.size + _CHECKSUM.size

_SALTS = slice(16, 24)
"""The place of the salts in the header of a WAL. A WAL that restarts gets others."""

_LEAST_COOKIE = 2**20
"""SQLite gives a copy a small schema cookie, or the next one. A large random cookie is like neither."""

_PAUSE = 0.2
"""Seconds between two attempts to confirm a mark, while a long read keeps the checkpoint from its end."""


class Mark(NamedTuple):
    """The content of the row.

    :ivar base: the token that the database file holds without the WAL.
    :ivar wal: the salts of the WAL for which the mark was made.
    :ivar cookie: the schema cookie of the file.
    """

    token: bytes
    base: bytes
    wal: bytes
    cookie: int

    @classmethod
    def unpack(cls, blob: object) -> Self | None:
        """Return a mark, :data:`UNMARKED` for zeros, or ``None`` for anything else."""
        if not isinstance(blob, bytes) or len(blob) != SIZE:
            return None
        content, (checksum,) = blob[: _LAYOUT.size], _CHECKSUM.unpack(blob[_LAYOUT.size :])
        magic, token, base, wal, cookie = _LAYOUT.unpack(content)
        if any(blob) and (magic != _MAGIC or zlib.crc32(content) != checksum):
            return None
        return cls(token, base, wal, cookie)

    def pack(self) -> bytes:
        content = _LAYOUT.pack(_MAGIC, *self)
        return content + _CHECKSUM.pack(zlib.crc32(content))

    @property
    def confirmed(self) -> bool:
        """True if the database file itself holds the token."""
        return self.token == self.base


UNMARKED = Mark(bytes(8), bytes(8), bytes(8), 0)
"""The mark of a file that was never started with a mark."""


def new_token() -> bytes:
    return os.urandom(8)


def read(connection: sqlite3.Connection) -> Mark | None:
    row = connection.execute("SELECT mark FROM wal_mark WHERE rowid = 1").fetchone()
    return Mark.unpack(row[0]) if row else None


def write(connection: sqlite3.Connection, mark: Mark) -> None:
    # The length never changes. So SQLite overwrites the row in its place, and the page holds no older mark.
    connection.execute("UPDATE wal_mark SET mark = ? WHERE rowid = 1", (mark.pack(),))


class MarkKeeper:
    """Changes the mark of an open file. It belongs to the thread of the writer.

    It does what it can: a file whose mark cannot be changed now works like any other.
    """

    def __init__(
        self, connection: sqlite3.Connection, watch: FileWatch, *, synchronous: str, busy_timeout: float
    ) -> None:
        self._connection = connection
        self._watch = watch
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._marked = b""
        self._again_at = 0.0

    def start(self) -> None:
        """Give the file a new mark, behind all that an earlier process left in the WAL."""
        self._try(fresh=True)

    def committed(self) -> None:
        """Give the file a new mark if the WAL restarted with the last commit."""
        with suppress(OSError):
            if self._salts() != self._marked and time.monotonic() >= self._again_at:
                self._try(fresh=False)

    def _try(self, *, fresh: bool) -> None:
        if not self._watch.in_place:
            return
        self._again_at = time.monotonic() + _PAUSE
        try:
            # What this writes need not survive a power cut. A checkpoint syncs all the same.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._change(fresh=fresh)
        except (sqlite3.Error, OSError):
            with suppress(sqlite3.Error):
                rollback(self._connection)
        finally:
            with suppress(sqlite3.Error):
                self._connection.execute(f"PRAGMA synchronous = {self._synchronous}")

    def _change(self, *, fresh: bool) -> None:
        if fresh:
            self._checkpoint()  # Then the next commit restarts the WAL, if nobody else reads it.
        mark = self._renew(fresh=fresh)
        if mark.confirmed or (self._checkpoint() and self._confirm(mark.token)):
            self._marked = self._salts()
            self._again_at = 0.0

    def _renew(self, *, fresh: bool) -> Mark:
        """Write a new mark, unless another process did so for this WAL. Return the mark."""
        begin(self._connection, self._busy_timeout)
        mark = read(self._connection) or UNMARKED
        if fresh or mark.wal != self._salts():
            mark = Mark(new_token(), mark.token, self._salts(), self._cookie())
            write(self._connection, mark)
        self._connection.execute("COMMIT")
        return mark

    def _confirm(self, token: bytes) -> bool:
        """Write that the file itself holds the token. Return false if another process has changed it meanwhile."""
        salts = None
        while salts != self._salts():  # The first commit behind a checkpoint restarts the WAL.
            begin(self._connection, self._busy_timeout)
            salts = self._salts()
            mark = read(self._connection)
            if mark is None or mark.token != token:
                rollback(self._connection)
                return False
            write(self._connection, mark._replace(base=token, wal=salts))
            self._connection.execute("COMMIT")
        return True

    def _cookie(self) -> int:
        """Return the schema cookie, inside of a transaction; a new one if the file has one of SQLite's own."""
        (cookie,) = self._connection.execute("PRAGMA schema_version").fetchone()
        if cookie < _LEAST_COOKIE:
            cookie = random.randrange(_LEAST_COOKIE, 2**31 - 2**20)
            self._connection.execute(f"PRAGMA schema_version = {cookie}")
        return int(cookie)

    def _checkpoint(self) -> bool:
        """Move the WAL into the file. Return whether all of it is there."""
        busy, frames, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and frames == moved

    def _salts(self) -> bytes:
        return self._watch.read_wal(_SALTS.stop)[_SALTS]
