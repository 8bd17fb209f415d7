"""``make bench``: what a turn costs here, at the floor and with a peer, in one run.

The machines that this runs on are noisy, so the stores take turns alternately and the ratios are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from bench import agents, postgresql, valkey
from bench.picture import draw
from bench.stores import Floor, Ours, Peer, Store
from bench.turns import PAYLOAD, WINDOW
from servers.postgresql import running, servers
from servers.valkey import ValkeyServer
from session_history import Message, SqliteSessionHistoryService, with_session_history

Opener = Callable[[Path], AbstractAsyncContextManager[Store]]

FLOOR = "floor"
OURS = "sqlite"
PEER = "openai-agents"
STORES: dict[str, Opener] = {
    FLOOR: Floor.sqlite,
    OURS: Ours.sqlite,
    PEER: Peer.sqlite,
    "memory": Ours.memory,
}

Opening = Callable[[str], AbstractAsyncContextManager[Store]]

ON_POSTGRESQL: dict[str, Opening] = {
    FLOOR: postgresql.Floor.open,
    "ours": Ours.open,
    "openai-agents": postgresql.Agents.open,
    "google-adk": postgresql.Adk.open,
    "langgraph": postgresql.Langgraph.open,
}
ON_VALKEY: dict[str, Opening] = {FLOOR: valkey.Floor.open, "ours": Ours.open, "openai-agents": valkey.Agents.open}

MESSAGES = (10, 1_000, 10_000, 100_000)
FEWER_MESSAGES = (10, 1_000, 10_000)
"""On servers: some peers take minutes to fill more."""
AT_ONCE = 64

Costs = dict[int, dict[str, float]]
"""Median milliseconds of a turn, by messages in the session and by store."""


def row(name: object, cells: list[str]) -> None:
    print(f"{name!s:>24}" + "".join(f"{cell:>28}" for cell in cells), flush=True)


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f} x"


async def cost_by_length(stores: dict[str, Store], rounds: int, lengths: Sequence[int] = MESSAGES) -> Costs:
    """Fill a session of each length in each store, then let the stores take turns alternately."""
    costs: Costs = {}
    row("messages", [f"{name} ms (x floor)" for name in stores])
    for number, messages in enumerate(lengths):
        session_id = f"s{number}"
        for store in stores.values():
            await store.fill(session_id, messages // 2)
        taken: dict[str, list[float]] = {name: [] for name in stores}
        for _ in range(rounds):
            for name, store in stores.items():
                began = time.perf_counter()
                loaded = await store.turn(session_id)
                taken[name].append(1000 * (time.perf_counter() - began))
                assert loaded >= min(messages, 40), f"{name} loaded {loaded} of {messages} messages"
        costs[messages] = {name: statistics.median(times) for name, times in taken.items()}
        floor = costs[messages][FLOOR]
        row(f"{messages:,}", [f"{cost:.2f} ({ratio(cost, floor)})" for cost in costs[messages].values()])
    return costs


async def throughput(stores: dict[str, Store], turns: int) -> dict[str, float]:
    """Turns per second of 64 sessions at once."""
    found: dict[str, list[float]] = {name: [] for name in stores}

    async def talk(store: Store, session_id: str) -> None:
        for _ in range(turns):
            await store.turn(session_id)

    for attempt in range(3):
        for name, store in stores.items():
            began = time.perf_counter()
            await asyncio.gather(*(talk(store, f"s{100 + attempt * AT_ONCE + each}") for each in range(AT_ONCE)))
            found[name].append(AT_ONCE * turns / (time.perf_counter() - began))
    return {name: statistics.median(rates) for name, rates in found.items()}


async def on_a_server(name: str, url: str, openings: dict[str, Opening], rounds: int) -> None:
    """Print the cost of a turn, and the turns of 64 sessions at once; stores have 10 connections each."""
    print(f"\n{name}: a turn (medians)")
    async with AsyncExitStack() as stack:
        stores = {name: await stack.enter_async_context(opening(url)) for name, opening in openings.items()}
        await cost_by_length(stores, rounds, FEWER_MESSAGES)
        rates = await throughput(stores, turns=12)
    print(f"{name}: {AT_ONCE} sessions at once, turns per second")
    row("", [f"{rate:,.0f} ({ratio(rate, rates[FLOOR])})" for rate in rates.values()])


async def on_servers(rounds: int) -> None:
    with servers() as machine, running(machine) as server:
        await on_a_server("PostgreSQL", server.url(), ON_POSTGRESQL, rounds)
    with ValkeyServer() as server:
        await on_a_server("Valkey", server.url, ON_VALKEY, rounds)


async def bytes_on_disk(folder: Path, turns: int) -> dict[str, float]:
    """Bytes of the file per byte of payload, after all is in it and the store is closed."""
    found = {}
    for name, file in ((FLOOR, "floor.db"), (OURS, "ours.db"), (PEER, "peer.db")):
        place = folder / f"disk-{name}"
        place.mkdir()
        async with STORES[name](place) as store:
            await store.fill("s1", turns)
        found[name] = (place / file).stat().st_size / (turns * PAYLOAD)
    return found


def import_seconds(module: str) -> float:
    """Seconds that an import adds to an empty program, the least of several runs."""

    def least(code: str) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - began)
        return min(times)

    return least(f"import {module}") - least("pass")


async def first_piece(folder: Path) -> float:
    """Milliseconds from the call of a streaming handler to its first piece, in a session of 1,000 messages."""
    async with SqliteSessionHistoryService(folder / "stream.db") as service:
        await Ours(service).fill("s1", 500)

        @with_session_history(service, last_turns=WINDOW)
        async def handler(messages: list[Message]) -> AsyncIterator[str]:
            yield "piece"

        times = []
        for _ in range(100):
            began = time.perf_counter()
            async for _piece in handler("Hello", user_id="u", session_id="s1"):
                times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times)


async def main(rounds: int, picture: Path | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print("A turn: load 20 turns, append 2 messages (medians)")
        async with AsyncExitStack() as stack:
            stores = {name: await stack.enter_async_context(opener(folder)) for name, opener in STORES.items()}
            costs = await cost_by_length(stores, rounds)
            print(f"\n{AT_ONCE} sessions at once: turns per second")
            rates = await throughput(stores, turns=12)
            row("", list(rates))
            row("", [f"{rate:,.0f} ({ratio(rate, rates[FLOOR])})" for rate in rates.values()])
        print("\nBytes on disk per byte of payload")
        disk = await bytes_on_disk(folder, 2000)
        row("", list(disk))
        row("", [f"{share:.2f}" for share in disk.values()])
        print(f"\nFirst streamed piece, 1,000 messages: {await first_piece(folder):.2f} ms")
        print(f"\nAgentScope agents, {agents.TURNS} turns with a tool in each (medians of {agents.PART})")
        await agents.report(folder, row)
    await on_servers(max(1, rounds // 4))
    for module in ("session_history", "agents"):
        print(f"import {module}: {import_seconds(module):.2f} s")
    if picture:
        draw(costs, picture)
        print(f"Picture: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="turns of each store at each length")
    parser.add_argument("--picture", type=Path, help="an SVG file to draw the cost of a turn into")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.picture))
