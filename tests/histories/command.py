"""The command line of ``make histories``: processes use a store while others are killed and stopped."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from random import SystemRandom

from histories.arenas import ARENAS
from histories.eras import Plan, Report, run

SHOWN = 5
"""The most flaws that are printed."""


def histories(name: str, minutes: float, seed: int, plan: Plan) -> bool:
    """Run a store and print what was seen; return whether all held."""
    began = time.monotonic()

    def progress(report: Report) -> None:
        print(f"  {name} after {time.monotonic() - began:.0f} s: {report}", flush=True)

    report = run(name, plan, seed, seconds=minutes * 60, progress=progress)
    print(f"{name}, seed {seed}: {report}; {time.monotonic() - began:.0f} s", flush=True)
    for flaw in report.flaws[:SHOWN]:
        print(f"FLAW {flaw}", flush=True)
    return not report.flaws


def main() -> int:
    parser = argparse.ArgumentParser(prog="make histories", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each store")
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(1 << 32), help="draws the same faults; processes race"
    )
    parser.add_argument("--bug", default="", help="a planted bug")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--era", type=float, default=15.0, help="seconds of an era")
    parser.add_argument("--restores", type=float, default=0.3, help="the share of eras in which a backup is restored")
    parser.add_argument("--live", type=float, default=0.5, help="the share of restores while clients go on")
    parser.add_argument("--keep", type=Path, help="a folder for the histories of an era with a flaw")
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("stores", nargs="*", choices=[[], *ARENAS], help="sqlite, valkey and postgresql by default")
    given = parser.parse_args()
    plan = Plan(
        seconds=given.era,
        clients=given.clients,
        restores=given.restores,
        live=given.live,
        keep=given.keep,
        faults=not given.no_faults,
        bug=given.bug,
    )
    held = [
        histories(name, given.minutes, given.seed, plan) for name in given.stores or ("sqlite", "valkey", "postgresql")
    ]
    return 0 if all(held) else 1
