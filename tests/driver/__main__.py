"""``python -m driver``: random turns on each provider. See :mod:`driver`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from random import SystemRandom

from driver.books import Flaw
from driver.driver import Driver, Report, show_progress
from driver.stores import NARROW, STORES

SHARE_OF_NARROW = 4
"""One turn in so many runs on a store with small entries."""


async def drive(
    name: str, turns: int, seed: int, *, narrow: bool = False, progress: Callable[[Report], None] = lambda _: None
) -> Report:
    """Take turns on a store. :raises Flaw: something does not hold; it says the step."""
    async with (NARROW if narrow else STORES)[name]() as store:
        driver = Driver(store, seed, progress=progress)
        try:
            return await driver.drive(turns)
        except Exception as error:
            error.add_note(driver.step)
            error.add_note("before:\n  " + "\n  ".join(line for past in driver.past.values() for line in past))
            raise


def run(name: str, turns: int, seed: int) -> bool:
    """Take turns on a store and print what was seen; return whether all held."""
    for narrow in (False, True):
        if narrow and name not in NARROW:
            continue
        label = f"{name}, small entries" if narrow else name
        began = time.monotonic()
        count = turns // SHARE_OF_NARROW if narrow else turns
        try:
            report = asyncio.run(drive(name, count, seed, narrow=narrow, progress=show_progress(1000)))
        except Flaw as flaw:
            notes = "\n".join(getattr(flaw, "__notes__", []))
            print(f"{label}: FAILED with --seed {seed}: {flaw}\n{notes}", flush=True)
            return False
        print(f"{label}, seed {seed}: {report}; {time.monotonic() - began:.0f} s", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="make turns", description=__doc__)
    parser.add_argument("--turns", type=int, default=10_000, help="for each provider")
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(1 << 32), help="draws the same turns again"
    )
    parser.add_argument("stores", nargs="*", choices=[[], *STORES], help="memory, sqlite and valkey by default")
    given = parser.parse_args()
    held = [run(name, given.turns, given.seed) for name in given.stores or ("memory", "sqlite", "valkey")]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
