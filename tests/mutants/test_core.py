"""Tests catch bugs planted into the core. ``make mutants`` runs them all."""

from __future__ import annotations

import pytest

from mutants.core_bugs import CORE_BUGS
from mutants.core_runs import CoreBug, run_own_test
from mutants.runs import TESTS

SAMPLE = CORE_BUGS[3::20]


@pytest.mark.parametrize("bug", CORE_BUGS, ids=lambda bug: bug.seen)
def test_planted_bug_changes_the_source_as_it_is(bug: CoreBug) -> None:
    compile(bug.planted(), bug.path, "exec")
    file, name = bug.test.split("::")
    assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("bug", SAMPLE, ids=lambda bug: bug.seen)
def test_named_test_catches_a_planted_bug(bug: CoreBug) -> None:
    found = run_own_test(bug)
    assert found.failed, found.output


def test_bugs_have_names_of_their_own() -> None:
    assert len({bug.seen for bug in CORE_BUGS}) == len(CORE_BUGS)
