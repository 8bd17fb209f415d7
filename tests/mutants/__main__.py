"""``python -m mutants``: print which test catches which bug, and fail if no test catches one of them.

``python -m mutants providers`` and ``python -m mutants core`` run one of the two parts.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mutants import core_runs
from mutants.bugs import BUGS
from mutants.core_bugs import CORE_BUGS
from mutants.runs import HEALTHY, PROVIDERS, Run, run

SHOWN = 6
"""The most tests that a row names."""


def main(parts: list[str]) -> int:
    wrong = 0
    if "providers" in parts or not parts:
        wrong += check_providers()
    if "core" in parts or not parts:
        wrong += check_core()
    return wrong


def check_providers() -> int:
    """Run the contract suite on each provider; return how many results are wrong."""
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


def check_core() -> int:
    """Run for each bug of the core the test that catches it, and all of them without a bug; return how many fail."""
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        healthy = pool.submit(core_runs.run, None, [bug.test for bug in CORE_BUGS])
        runs = []
        for bug, each in zip(CORE_BUGS, pool.map(core_runs.run_own_test, CORE_BUGS), strict=True):
            print(f"{bug.seen:<88} {each.seconds:4.0f} s  {bug.test if each.failed else 'NOTHING'}", flush=True)
            runs.append(each)
    wrong = [each for each in runs if not each.failed] + [each for each in [healthy.result()] if not each.passed]
    for each in wrong:
        print(f"\n{each.output}")
    caught = sum(each.failed for each in runs)
    print(f"\n{caught} of {len(CORE_BUGS)} bugs of the core caught; ", end="")
    print(f"the tests {'pass' if healthy.result().passed else 'FAIL'} without a bug; {time.monotonic() - began:.0f} s")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
