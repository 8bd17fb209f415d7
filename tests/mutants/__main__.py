"""``python -m mutants``: print which test catches which bug, and fail if no test catches one of them."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mutants.bugs import BUGS
from mutants.runs import HEALTHY, PROVIDERS, Run, run

SHOWN = 6
"""The most tests that a row names."""


def main() -> int:
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, PROVIDERS))
    for each in runs:
        print("\n".join(lines(each)))
    wrong = [each for each in runs if not each.as_expected]
    for each in wrong:
        print(f"\n{each.name}:\n{each.output}")
    caught = sum(each.as_expected for each in runs if each.name in BUGS)
    print(f"\n{caught} of {len(BUGS)} bugs caught, {len(HEALTHY)} providers without a bug; ", end="")
    print(f"{time.monotonic() - began:.0f} s")
    return len(wrong)


def lines(each: Run) -> list[str]:
    """Return the lines of one provider."""
    healthy = each.name in HEALTHY
    verdict = "nothing to catch" if healthy else "caught by"
    names = list(each.failed[:SHOWN]) or ["-" if healthy else "NOTHING"]
    if len(each.failed) > SHOWN:
        names.append(f"and {len(each.failed) - SHOWN} more")
    return [
        f"{each.name:<40} {each.seconds:4.0f} s  {verdict:<17} {names[0]}",
        *(f"{'':<66}{name}" for name in names[1:]),
    ]


if __name__ == "__main__":
    sys.exit(main())
