"""Stores of which a test damages one stored value at a time, through the raw client of the database."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import uuid4

import asyncpg
from tablestore import Condition, Row, RowExistenceExpectation

from contract.stores import valkey_url
from providers.postgresql.support import create_schema, home_url
from providers.tablestore.support import TABLE, all_rows, provider
from servers.tablestore import TablestoreServer
from servers.tablestore_client import sync_client
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionHistoryProvider

VALUES: tuple[Any, ...] = (
    None, "", " ", "x", "7", "[]", "{}", "null", '{"v": 1}', '{"v": 2}', "[" * 9999, '["\\ud800"]', "[7]", "x" * 99_999,
    b"", b"\0", b"\xff\xfe", b"\2" * 99, -1, 0, 1, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1, 2**64, 1.5, -0.5,
    float("inf"), float("nan"), True,
)  # fmt: skip
"""What takes the place of a value; ``None`` = nothing."""


@dataclass(frozen=True)
class Cell:
    """A stored value.

    :ivar row: identifies the row for its store.
    :ivar name: the column, field or element.
    """

    row: tuple[Any, ...]
    name: str


class Damaged(Protocol):
    """A store with sessions, and a copy of it as it was."""

    async def keep(self) -> None:
        """Remember what the store holds."""

    async def cells(self) -> Sequence[Cell]: ...

    async def get(self, cell: Cell) -> Any: ...

    async def set(self, cell: Cell, value: Any) -> None:
        """Damage a value. :raises Exception: the database does not take this value there."""

    async def reset(self) -> None:
        """Go back to what was kept."""

    def connect(self) -> SessionHistoryProvider: ...


def damages(value: Any, others: Sequence[Any], chance: random.Random) -> list[Any]:
    """Return values that are to take the place of one: fixed ones, changed ones, and one of another row."""
    found = [*VALUES, chance.choice(others)]
    if isinstance(value, str | bytes):
        found += [value[: len(value) // 2], value[:-1], value * 2]
    if isinstance(value, bytes) and value:
        found += [_flipped(value, chance) for _ in range(8)]
    if type(value) is int:
        found += [value + 1, value - 1, -value, value ^ (1 << chance.randrange(62)), str(value)]
    return found


def _flipped(value: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(min(len(value), 200))
    return value[:place] + bytes([value[place] ^ (1 << chance.randrange(8))]) + value[place + 1 :]


class DamagedSqlite:
    """A file; each reset is another file."""

    KEYS: ClassVar = {"head": ("log",), "entry": ("k",), "entry_id": ("log", "id"), "store": ("rowid",)}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "first.db"

    def connect(self) -> SqliteProvider:
        return SqliteProvider(self._path, synchronous="NORMAL")

    async def keep(self) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(self._path, self._folder / "kept.db")

    async def reset(self) -> None:
        self._path.unlink(missing_ok=True)
        self._path = self._folder / f"{uuid4().hex}.db"
        shutil.copy(self._folder / "kept.db", self._path)

    async def cells(self) -> Sequence[Cell]:
        found = []
        with closing(sqlite3.connect(self._path)) as connection:
            for table, key in self.KEYS.items():
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                rows = connection.execute(f"SELECT {', '.join(key)} FROM {table}").fetchall()
                found += [Cell((table, *row), name) for row in rows for name in columns]
        return found

    async def get(self, cell: Cell) -> Any:
        table, *row = cell.row
        with closing(sqlite3.connect(self._path)) as connection:
            connection.text_factory = bytes
            found = connection.execute(f"SELECT {cell.name} FROM {table} WHERE {self._where(table)}", row).fetchone()
        return found and found[0]

    async def set(self, cell: Cell, value: Any) -> None:
        table, *row = cell.row
        new = "CAST(? AS TEXT)" if value == b"\xff\xfe" else "?"  # text that is not UTF-8
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(f"UPDATE {table} SET {cell.name} = {new} WHERE {self._where(table)}", (value, *row))

    def _where(self, table: str) -> str:
        return " AND ".join(f"{name} = ?" for name in self.KEYS[table])


class DamagedPostgresql:
    """A schema, and copies of its tables."""

    TABLES = ("session_history_head", "session_history_entry", "session_history_store")

    def __init__(self) -> None:
        self._schema = ""

    def connect(self) -> PostgresqlProvider:
        return PostgresqlProvider(home_url(), schema=self._schema, durability="host", pool_size=2)

    async def make(self) -> None:
        self._schema = await create_schema(home_url())

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(home_url(), server_settings={"search_path": self._schema})
        try:
            yield connection
        finally:
            await connection.close()

    async def keep(self) -> None:
        async with self._connection() as connection:
            for table in self.TABLES:
                await connection.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")

    async def reset(self) -> None:
        async with self._connection() as connection, connection.transaction():
            for table in self.TABLES:
                names = ", ".join(await self._columns(connection, table))
                await connection.execute(f"DELETE FROM {table}")
                await connection.execute(
                    f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM kept_{table}"
                )

    async def cells(self) -> Sequence[Cell]:
        found = []
        async with self._connection() as connection:
            for table in self.TABLES:
                columns = await self._columns(connection, table)
                rows = await connection.fetch(f"SELECT ctid::text FROM kept_{table} ORDER BY ctid")
                found += [Cell((table, number), name) for number in range(len(rows)) for name in columns]
        return found

    async def get(self, cell: Cell) -> Any:
        return await self._kept(cell, cell.name)

    async def _kept(self, cell: Cell, name: str) -> Any:
        table, number = cell.row
        async with self._connection() as connection:
            return await connection.fetchval(f"SELECT {name} FROM kept_{table} ORDER BY ctid OFFSET {number} LIMIT 1")

    async def set(self, cell: Cell, value: Any) -> None:
        table, _ = cell.row
        keys = {"head": ("log",), "entry": ("log", "seq", "part"), "store": ("incarnation",)}[table.split("_")[-1]]
        places = [await self._kept(cell, key) for key in keys]
        where = " AND ".join(f"{key} = ${number}" for number, key in enumerate(keys, 2))
        async with self._connection() as connection:
            await connection.execute(f"UPDATE {table} SET {cell.name} = $1 WHERE {where}", value, *places)

    async def _columns(self, connection: Any, table: str) -> list[str]:
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2"
            " AND is_generated = 'NEVER' ORDER BY ordinal_position",
            self._schema,
            table,
        )
        return [row[0] for row in rows]


class DamagedValkey:
    """Keys under a prefix, and their dumps."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._prefix = uuid4().hex
        self._kept: dict[bytes, bytes] = {}

    def connect(self) -> RedisProvider:
        return RedisProvider(valkey_url("valkey"), prefix=self._prefix)

    async def keep(self) -> None:
        self._kept = {name: self._client.dump(name) for name in self._names()}

    async def reset(self) -> None:
        for name in self._names():
            self._client.delete(name)
        for name, dump in self._kept.items():
            self._client.restore(name, 0, dump)

    def _names(self) -> list[bytes]:
        return sorted(self._client.keys(f"{self._prefix}:*"))

    async def cells(self) -> Sequence[Cell]:
        found = []
        for name in self._names():
            kind = self._client.type(name)
            if kind == b"hash":
                found += [
                    Cell((name, kind, field), part) for field in self._client.hkeys(name) for part in ("name", "value")
                ]
            elif kind == b"zset":
                members = self._client.zrange(name, 0, -1)
                found += [Cell((name, kind, member), part) for member in members for part in ("name", "score")]
            else:
                found += [Cell((name, kind, place), "value") for place in range(self._client.llen(name))]
        return found

    async def get(self, cell: Cell) -> Any:
        name, kind, place = cell.row
        if cell.name == "name":
            return place
        if kind == b"hash":
            return self._client.hget(name, place)
        return self._client.zscore(name, place) if kind == b"zset" else self._client.lindex(name, place)

    async def set(self, cell: Cell, value: Any) -> None:
        name, kind, place = cell.row
        value = repr(value) if isinstance(value, bool) else value
        old = await self.get(cell)
        match kind, cell.name:
            case b"hash", "value" if value is None:
                self._client.hdel(name, place)
            case b"hash", "value":
                self._client.hset(name, place, value)
            case b"hash", "name":
                held = self._client.hget(name, place)
                self._client.hdel(name, place)
                if value is not None:
                    self._client.hset(name, value, held)
            case b"zset", "score":
                self._client.zadd(name, {place: float(value)})
            case b"zset", "name":
                score = self._client.zscore(name, place)
                self._client.zrem(name, old)
                if value is not None:
                    self._client.zadd(name, {value: score})
            case _, _ if value is None:
                self._client.lset(name, place, "gone")
                self._client.lrem(name, 1, "gone")
            case _:
                self._client.lset(name, place, value)


class DamagedTablestore:
    """A table of the local server, and a copy of it."""

    def __init__(self, server: TablestoreServer) -> None:
        self._server = server

    def connect(self) -> SessionHistoryProvider:
        return provider(self._server.endpoint)

    async def keep(self) -> None:
        self._kept = self._server.copy(TABLE)
        self._rows = {tuple(row.primary_key): row for row in all_rows(self._server)}

    async def reset(self) -> None:
        self._server.paste(self._kept)

    async def cells(self) -> Sequence[Cell]:
        return [
            Cell(key, name)
            for key, row in self._rows.items()
            for name in dict.fromkeys([*(column[0] for column in row.attribute_columns), "k", "rs", "c", "z", "a", "r"])
        ]

    async def get(self, cell: Cell) -> Any:
        columns = {name: value for name, value, *_ in self._rows[cell.row].attribute_columns}
        value = columns.get(cell.name)
        return bytes(value) if isinstance(value, bytearray) else value

    async def set(self, cell: Cell, value: Any) -> None:
        value = bytearray(value) if isinstance(value, bytes) else value
        columns = {name: old for name, old, *_ in self._rows[cell.row].attribute_columns} | {cell.name: value}
        row = Row(list(cell.row), [(name, each) for name, each in columns.items() if each is not None])
        sync_client(self._server).put_row(TABLE, row, Condition(RowExistenceExpectation.IGNORE))
