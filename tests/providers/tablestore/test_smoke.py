"""examples/tablestore_smoke.py: it is content with the test server, and with none that differs in a point."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from servers.tablestore import TablestoreServer, filters, limits, reads, service, tables, writes
from servers.tablestore.plainbuffer import Row as WireRow
from servers.tablestore_client import async_client
from session_history import create_tablestore_client
from session_history.errors import Unavailable
from session_history.providers.tablestore import table
from support import ROOT

SCRIPT = ROOT / "examples" / "tablestore_smoke.py"


@pytest.fixture
def server() -> Iterator[TablestoreServer]:
    with TablestoreServer() as server:
        yield server


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.delitem(sys.modules, SCRIPT.stem, raising=False)
    return __import__(SCRIPT.stem)


def run(server: TablestoreServer, *options: str, secret: str = "sk") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), server.endpoint, "inst", *options]
    environment = {**os.environ, "TABLESTORE_ACCESS_KEY_ID": "ak", "TABLESTORE_ACCESS_KEY_SECRET": secret}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


async def tables_left(server: TablestoreServer) -> tuple[str, ...]:
    async with async_client(server) as client:
        names: tuple[str, ...] = await client.list_table()
        return names


async def test_it_finds_the_test_server_as_it_takes_tablestore_to_be(
    server: TablestoreServer, smoke: ModuleType
) -> None:
    server.ready_after = 0.5
    ended = await asyncio.to_thread(run, server, "--region", "cn-hangzhou")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("    holds  ") == 1 + len(smoke.CHECKS)
    assert await tables_left(server) == ()
    assert 7_000 < server.units.total() < 9_000, "what the script says that it costs"


def test_it_says_what_is_wrong_with_a_key(server: TablestoreServer) -> None:
    ended = run(server, secret="not it")
    assert ended.returncode == 2
    assert "ConfigurationError: Tablestore refuses the credentials" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_start_that_fails_leaves_no_table(
    server: TablestoreServer, smoke: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "READY_PATIENCE", 0.2)
    server.ready_after = 3600
    with pytest.raises(Unavailable):
        await smoke.smoke(partial(create_tablestore_client, server.endpoint, "inst", "ak", "sk"))
    assert server.count("CreateTable") == 1
    assert await tables_left(server) == ()


# Servers that differ in one point

Patch = tuple[Any, str, Any]


def with_last_key(self: Any, start: Any, end: Any, *, backward: bool) -> Iterator[Any]:
    first, last = sorted([tables.place(start), tables.place(end)])
    found = self._places[bisect_left(self._places, first) : bisect_right(self._places, last)]
    return (self._rows[where] for where in (found[::-1] if backward else found))


def merging(of: Callable[..., Any], stored: Any, write: Any, old: Any, now: float) -> Any:
    new = of(stored, write, old, now)
    return tables.Row(new.key, {**old.columns, **new.columns}, new.written) if new and old else new


def deleting_one_batch(of: Callable[..., Any], stored: Any, write: Any, old: Any, now: float) -> Any:
    is_late = write.operation is writes.Operation.DELETE and dict(write.key)["q"] > limits.ROWS_PER_WRITE
    return old if is_late else of(stored, write, old, now)


def as_doubles(of: Callable[..., bool], found: Any, comparator: int, wanted: Any) -> bool:
    if type(found) is type(wanted) is int:
        found, wanted = float(found), float(wanted)
    return of(found, comparator, wanted)


def late(of: Callable[..., None], self: Any, now: float) -> None:
    of(self, now - 1)


def with_token(of: Callable[..., Any], *args: Any, limit: int | None, **named: Any) -> Any:
    found = of(*args, limit=limit, **named)
    return reads.Page(found.rows, found.size, found.rows[-1].key) if len(found.rows) == limit else found


def as_utf16(of: Callable[..., Any], value: Any) -> Any:
    return (1, value.encode("utf-16-be")) if isinstance(value, str) else of(value)


def showing_all(of: Callable[..., Any], self: Any, row: Any) -> Any:
    return of(self, row) or WireRow(row.key, [])


def replaced(where: Any, name: str, by: Callable[..., Any]) -> Patch:
    real = getattr(where, name)

    def instead(*args: Any, **named: Any) -> Any:
        return by(real, *args, **named)

    return where, name, instead


DIFFERENT: dict[str, tuple[Patch, str]] = {
    "2 a range has its end": ((tables.Rows, "between", with_last_key), "order_of_places"),
    "3 a put merges": (replaced(writes, "_changed", merging), "put_replaces"),
    "4 conditions are overlooked": ((writes, "_check_condition", lambda *_: None), "conditions_hold"),
    "4 marks are doubles": (replaced(filters, "_compared", as_doubles), "marks_are_compared_exactly"),
    "5 the index is late": (replaced(tables.Index, "settle", late), "index_is_synchronous"),
    "6 a full page has a next key": (replaced(service, "page", with_token), "pages_of_a_listing"),
    "7 a column holds 1 MB": ((limits, "CELL_VALUE", 10**6), "large_values"),
    "8 texts are in UTF-16's order": (replaced(tables, "_place", as_utf16), "order_of_texts"),
    "8 keys are short": ((limits, "KEY_VALUE", 255), "any_text_is_a_key"),
    "9 one batch is deleted": (replaced(writes, "_changed", deleting_one_batch), "deleting_leaves_nothing"),
    "9 all rows are shown": (replaced(reads.Selection, "of", showing_all), "columns_that_are_asked_for"),
}


@pytest.mark.parametrize("point", DIFFERENT)
async def test_it_finds_what_is_different(
    server: TablestoreServer,
    smoke: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    point: str,
) -> None:
    patch, name = DIFFERENT[point]
    check = getattr(smoke, name)
    assert check in smoke.CHECKS
    monkeypatch.setattr(smoke, "CHECKS", [check])
    monkeypatch.setattr(*patch)
    assert not await smoke.smoke(partial(create_tablestore_client, server.endpoint, "inst", "ak", "sk"))
    assert f"DIFFERENT  {check.__doc__}" in capsys.readouterr().out
