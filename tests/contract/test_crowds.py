"""Many concurrent turns on every store: no turn is lost, doubled, reordered or torn."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import stores
from session_history import SessionHistoryService
from session_history_hooks.testing import Connect
from session_history_hooks.testing.processes import PROCESS_TIMEOUT, run_together

SESSIONS = 64
PROCESSES = 4
WRITERS = 4
TURNS = 8


@pytest.fixture(params=stores.KINDS)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    with stores.store(request.param, tmp_path) as connect:
        yield connect


async def take_turns(service: SessionHistoryService, session_id: str, writer: str) -> None:
    for number in range(TURNS):
        async with service.turn("u", session_id, last_turns=2, native=True) as turn:
            turn.add([{"writer": writer, "turn": number, "part": part} for part in range(3)])


async def turns_of(service: SessionHistoryService, session_id: str) -> list[tuple[str, int]]:
    """Return writer and number of each turn. Each turn must be whole."""
    session = await service.get_session("u", session_id, native=True)
    assert session is not None
    turns = [session.messages[start : start + 3] for start in range(0, len(session.messages), 3)]
    assert session.turns == len(turns)
    for turn in turns:
        assert [message["part"] for message in turn] == [0, 1, 2]
        assert len({(message["writer"], message["turn"]) for message in turn}) == 1
    return [(turn[0]["writer"], turn[0]["turn"]) for turn in turns]


async def test_concurrent_turns_of_many_sessions_are_all_stored(connect: Connect) -> None:
    async with SessionHistoryService(connect()) as service:
        await asyncio.gather(*(take_turns(service, f"s{number}", "w") for number in range(SESSIONS)))
        for number in range(SESSIONS):
            assert await turns_of(service, f"s{number}") == [("w", turn) for turn in range(TURNS)]
        sessions = await service.list_sessions("u", limit=SESSIONS)
        assert {session.id for session in sessions} == {f"s{number}" for number in range(SESSIONS)}


async def test_turns_of_many_processes_in_one_session_are_all_stored(
    connect: Connect, request: pytest.FixtureRequest
) -> None:
    names = [[f"{process}.{writer}" for writer in range(WRITERS)] for process in range(PROCESSES)]
    if request.node.callspec.params["connect"] == "memory":  # Only one process can use it.
        await write_together(connect, [name for group in names for name in group])
    else:
        await run_together(write_in_process, [(connect, group) for group in names])
    async with SessionHistoryService(connect()) as service:
        written = await turns_of(service, "s")
    assert len(written) == len(set(written)) == PROCESSES * WRITERS * TURNS
    by_writer: defaultdict[str, list[int]] = defaultdict(list)
    for writer, number in written:
        by_writer[writer].append(number)
    assert dict(by_writer) == {name: list(range(TURNS)) for group in names for name in group}


async def write_together(connect: Connect, names: list[str]) -> None:
    async with SessionHistoryService(connect()) as service:
        await asyncio.gather(*(take_turns(service, "s", name) for name in names))


def write_in_process(barrier: Any, connect: Connect, names: list[str]) -> None:
    barrier.wait(PROCESS_TIMEOUT)
    asyncio.run(write_together(connect, names))
