"""The contract suite catches planted bugs. ``make mutants`` also shows which tests catch which bug."""

from __future__ import annotations

import pytest

from mutants.bugs import BUGS
from mutants.catchers import CATCHERS
from mutants.runs import catch, run


@pytest.mark.parametrize("bug", BUGS)
def test_contract_suite_catches_a_planted_bug(bug: str) -> None:
    found = catch(bug)
    assert found.failed, found.output


def test_bugs_with_a_known_catcher_are_planted() -> None:
    assert CATCHERS.keys() <= BUGS.keys()


def test_contract_suite_passes_a_provider_without_bugs() -> None:
    found = run("memory", to_the_end=False)
    assert found.as_expected, found.output
