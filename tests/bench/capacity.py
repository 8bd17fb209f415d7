"""``make capacity``: what a turn and a session weigh in each store, and what a plan of sessions comes to.

Each store gets sessions of one turn, through the whole public API, then more turns in each. What the second part added
is the turns' weight, and what the first one had beyond that the sessions'.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence

from bench.instruments import CLIENT, CPU, IN_THIS_PROCESS, KEPT, STORES, Figures, Look
from bench.turns import PAYLOAD, WINDOW, Json, turn_of
from session_history import SessionHistoryService

SESSIONS = 1000
"""Of fewer, a session's own weight is lost among what a store keeps for any number of them."""

SESSIONS_OF_A_USER = 10
MORE_TURNS = 20
AT_ONCE = 16
MANY_AT_ONCE = 64
SAMPLE = 400


class Scales:
    """:param size: bytes of the messages of a turn."""

    def __init__(self, size: int) -> None:
        self.said: list[Json] = turn_of(size)

    async def talk(self, service: SessionHistoryService, number: int, turns: int) -> None:
        user, session = f"user-{number // SESSIONS_OF_A_USER:08}", f"session-{number:08}"
        for _ in range(turns):
            async with service.turn(user, session, last_turns=WINDOW, native=True) as turn:
                turn.add(self.said)

    async def part(self, service: SessionHistoryService, look: Look, numbers: Sequence[int], turns: int) -> Figures:
        """Return what so many turns in each session add to the figures."""
        before, began = await look(), time.process_time_ns()
        for first in range(0, len(numbers), AT_ONCE):
            await asyncio.gather(*(self.talk(service, number, turns) for number in numbers[first : first + AT_ONCE]))
        computed = (time.process_time_ns() - began) / 1000
        after = await look()
        return {name: after[name] - before[name] for name in after} | {CLIENT: computed}

    async def weigh(self, store: str, sessions: int) -> dict[str, tuple[float, float]]:
        """Return what a turn weighs, and a session beside its turns. The CPU of a session is in its turns.

        The last figures are of turns by a process that did not know the sessions, whose windows are full.
        """
        connecting, numbers = range(SESSIONS_OF_A_USER), range(SESSIONS_OF_A_USER, SESSIONS_OF_A_USER + sessions)
        async with STORES[store]() as (url, look):
            async with SessionHistoryService.from_url(url) as service:
                await asyncio.gather(*(self.talk(service, number, 1) for number in connecting))
                first = await self.part(service, look, numbers, 1)
                more = await self.part(service, look, numbers, MORE_TURNS)
            async with SessionHistoryService.from_url(url) as service:
                await asyncio.gather(*(self.talk(service, number, 1) for number in connecting))
                unknown = await self.part(service, look, numbers, 1)
        turn = {name: figure / sessions / MORE_TURNS for name, figure in more.items()}
        weights = {name: (turn[name], 0.0 if name in CPU else first[name] / sessions - turn[name]) for name in turn}
        told = {f"{name}, session unknown": (unknown[name] / sessions, 0.0) for name in CPU if name in unknown}
        return {name: weight for name, weight in (weights | told).items() if not _says_nothing(store, name)}

    async def among(self, store: str, crowds: Sequence[int]) -> list[float]:
        """Median milliseconds of a turn in a session of a store that holds so many, by a process that knows none."""
        medians, filled = [], 0
        async with STORES[store]() as (url, _):
            for crowd in crowds:
                async with SessionHistoryService.from_url(url) as service:
                    for first in range(filled, crowd, MANY_AT_ONCE):
                        numbers = range(first, min(first + MANY_AT_ONCE, crowd))
                        await asyncio.gather(*(self.talk(service, number, 1) for number in numbers))
                filled = crowd
                taken = []
                async with SessionHistoryService.from_url(url) as service:
                    for number in random.sample(range(crowd), min(SAMPLE, crowd)):
                        began = time.perf_counter()
                        await self.talk(service, number, 1)
                        taken.append(1000 * (time.perf_counter() - began))
                medians.append(statistics.median(taken))
        return medians

    async def hot(self, store: str) -> float:
        """Turns a second of one session, with many at once."""
        async with STORES[store]() as (url, _), SessionHistoryService.from_url(url) as service:
            await self.talk(service, 0, 1)
            began = time.perf_counter()
            await asyncio.gather(*(self.talk(service, 0, SAMPLE // AT_ONCE) for _ in range(AT_ONCE)))
            return SAMPLE // AT_ONCE * AT_ONCE / (time.perf_counter() - began)


def _says_nothing(store: str, name: str) -> bool:
    return store in IN_THIS_PROCESS and name.startswith(CLIENT)


def row(name: str, *figures: float) -> None:
    cells = (f"{figure:>16,.1f}" if place < 2 else f"{figure:>24.3g}" for place, figure in enumerate(figures))
    print(f"{name:<52}" + "".join(cells), flush=True)


async def report(store: str, scales: Scales, given: argparse.Namespace) -> None:
    print(
        f"\n{store:<52}{'a turn':>16}{'a session':>16}{f'{given.sessions:g} x {given.turns:g} turns':>24}", flush=True
    )
    weights = await scales.weigh(store, given.sample)
    kept = [weight for name, weight in weights.items() if name.startswith(KEPT)]
    weights[f"{KEPT}, all"] = sum(turn for turn, _ in kept), sum(session for _, session in kept)
    for name, (turn, session) in weights.items():
        row(name, turn, session, given.sessions * (session + given.turns * turn))
    row(f"turns a second in one session, {AT_ONCE} at once", await scales.hot(store))
    if store not in IN_THIS_PROCESS:
        for crowd, median in zip(given.crowds, await scales.among(store, given.crowds), strict=True):
            print(f"{f'milliseconds of a turn among {crowd:,} sessions':<52}{median:>16.2f}", flush=True)


async def main(given: argparse.Namespace) -> None:
    print(f"A turn has {given.bytes:,} bytes of messages; a user has {SESSIONS_OF_A_USER} sessions.")
    print(f"Weights are of {given.sample:,} sessions of {MORE_TURNS + 1} turns.")
    if given.sample < SESSIONS:
        print(f"Of fewer than {SESSIONS:,}, what a session weighs is not to be relied on.")
    scales = Scales(given.bytes)
    for store in given.stores or STORES:
        await report(store, scales, given)


def numbers_of(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _store(text: str) -> str:
    if text not in STORES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(STORES)}")
    return text


if __name__ == "__main__":
    os.environ |= {"TABLESTORE_ACCESS_KEY_ID": "ak", "TABLESTORE_ACCESS_KEY_SECRET": "sk"}
    parser = argparse.ArgumentParser(prog="make capacity", description=__doc__)
    parser.add_argument("--bytes", type=int, default=PAYLOAD, help="of the messages of a turn, as JSON")
    parser.add_argument("--sessions", type=float, default=1e9, help="sessions of the plan")
    parser.add_argument("--turns", type=float, default=10, help="turns of each of them")
    parser.add_argument("--sample", type=int, default=SESSIONS, help="sessions that are weighed in each store")
    parser.add_argument(
        "--crowds",
        type=numbers_of,
        default=[1_000, 10_000, 100_000],
        help="sessions among which a turn is timed: 1000,9000",
    )
    parser.add_argument("stores", nargs="*", type=_store, metavar="store", help=f"of {', '.join(STORES)}; else all")
    asyncio.run(main(parser.parse_args()))
