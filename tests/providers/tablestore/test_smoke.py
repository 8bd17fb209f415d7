"""examples/tablestore_smoke.py passes on the test server, and fails on each server that differs in one point."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from servers.tablestore import TablestoreServer, filters, limits, reads, service, tables, writes
from servers.tablestore.plainbuffer import Mark
from servers.tablestore.plainbuffer import Row as WireRow
from servers.tablestore_client import async_client
from session_history import create_tablestore_client
from session_history.errors import Unavailable
from session_history.providers.tablestore import table
from session_history.providers.tablestore.columns import ROW_NUMBER, USER_ID
from support import ROOT

SCRIPT = ROOT / "examples" / "tablestore_smoke.py"


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as a module."""
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


async def test_smoke_script_passes_on_the_test_server(server: TablestoreServer, smoke: ModuleType) -> None:
    server.ready_after = 0.5
    ended = await asyncio.to_thread(run, server, "--region", "cn-hangzhou")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("    holds  ") == 1 + len(smoke.CHECKS)
    assert await tables_left(server) == ()
    assert 11_000 < server.units.total() < 13_000, "the docstring of the script names the cost"


def test_smoke_script_with_a_wrong_key_says_so(server: TablestoreServer) -> None:
    ended = run(server, secret="not it")
    assert ended.returncode == 2
    assert "ConfigurationError: Tablestore refuses the credentials" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_smoke_script_after_a_failed_start_leaves_no_table(
    server: TablestoreServer, smoke: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "READY_TIMEOUT", 0.2)
    server.ready_after = 3600
    with pytest.raises(Unavailable):
        await smoke.smoke(partial(create_tablestore_client, server.endpoint, "inst", "ak", "sk"))
    assert server.count("CreateTable") == 1
    assert await tables_left(server) == ()


# Servers that differ in one point

Patch = tuple[Any, str, Any]


def including_the_end(self: Any, start: Any, end: Any, *, backward: bool) -> Iterator[Any]:
    first, last = sorted([tables.sortable(start), tables.sortable(end)])
    found = [row for row in self if first <= tables.sortable(row.key) <= last]
    return iter(found[::-1] if backward else found)


def merging(of: Callable[..., Any], stored: Any, write: Any, old: Any, now: float) -> Any:
    new = of(stored, write, old, now)
    return tables.Row(new.key, {**old.columns, **new.columns}, new.written) if new and old else new


def deleting_one_batch(of: Callable[..., Any], stored: Any, write: Any, old: Any, now: float) -> Any:
    is_second_batch = write.operation is writes.Operation.DELETE and dict(write.key)[ROW_NUMBER] > limits.ROWS_PER_WRITE
    return old if is_second_batch else of(stored, write, old, now)


def as_doubles(of: Callable[..., bool], found: Any, comparator: int, wanted: Any) -> bool:
    if type(found) is type(wanted) is int:
        found, wanted = float(found), float(wanted)
    return of(found, comparator, wanted)


def settled_later(of: Callable[..., None], self: Any, now: float) -> None:
    of(self, now - 1)


def with_next_key_on_a_full_page(of: Callable[..., Any], *args: Any, limit: int | None, **named: Any) -> Any:
    found = of(*args, limit=limit, **named)
    return reads.Page(found.rows, found.size, found.rows[-1].key) if len(found.rows) == limit else found


def in_order_of_utf16(of: Callable[..., Any], value: Any) -> Any:
    return (1, value.encode("utf-16-be")) if isinstance(value, str) else of(value)


def showing_all_rows(of: Callable[..., Any], self: Any, row: Any) -> Any:
    return of(self, row) or WireRow(row.key, [])


def within_one_user(of: Callable[..., Any], self: Any, start: Any, end: Any, *, backward: bool) -> Iterator[Any]:
    user = dict(start)[USER_ID]
    found = of(self, start, end, backward=backward)
    return (row for row in found if isinstance(user, Mark) or dict(row.key)[USER_ID] == user)


def replaced(where: Any, name: str, by: Callable[..., Any]) -> Patch:
    real = getattr(where, name)

    def instead(*args: Any, **named: Any) -> Any:
        return by(real, *args, **named)

    return where, name, instead


DIFFERENT: dict[str, tuple[Patch, str]] = {
    "2 a range includes its end": ((tables.Rows, "between", including_the_end), "order_of_numbers"),
    "2 a range ends with its user": (replaced(tables.Rows, "between", within_one_user), "users_are_found"),
    "3 a put merges": (replaced(writes, "changed", merging), "put_replaces"),
    "4 conditions are ignored": ((writes, "check_condition", lambda *_: None), "conditions_hold"),
    "4 integers are compared as doubles": (replaced(filters, "compare", as_doubles), "integers_are_compared_exactly"),
    "5 the index is late": (replaced(tables.Index, "settle", settled_later), "index_is_synchronous"),
    "6 a full page has a next key": (replaced(service, "page", with_next_key_on_a_full_page), "pages_of_a_listing"),
    "7 a column holds 1 MB": ((limits, "CELL_VALUE", 10**6), "large_values"),
    "7 a batch holds 100 rows": ((limits, "ROWS_PER_WRITE", 100), "restoring_writes_batches"),
    "7 a request holds 2 MB": ((limits, "REQUEST_DATA", 2 * 10**6), "restoring_writes_batches"),
    "8 texts are in the order of UTF-16": (replaced(tables, "sortable_value", in_order_of_utf16), "order_of_texts"),
    "8 keys are short": ((limits, "KEY_VALUE", 255), "any_text_is_a_key"),
    "9 one batch is deleted": (replaced(writes, "changed", deleting_one_batch), "deleting_leaves_nothing"),
    "9 all rows are shown": (replaced(reads.Selection, "of", showing_all_rows), "rows_without_the_columns"),
}
"""Points of docs/reference/tablestore.md, a server that differs there, and the check that must find the difference."""


@pytest.mark.parametrize("point", DIFFERENT)
async def test_smoke_script_finds_the_difference(
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
