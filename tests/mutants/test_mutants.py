"""The contract suite catches planted bugs. ``make mutants`` also says which of its tests do."""

from __future__ import annotations

import pytest

from mutants.bugs import BUGS
from mutants.runs import run


@pytest.mark.parametrize("bug", BUGS)
def test_the_contract_suite_catches(bug: str) -> None:
    found = run(bug, to_the_end=False)
    assert found.failed, found.output


def test_it_finds_nothing_where_nothing_is() -> None:
    found = run("memory", to_the_end=False)
    assert found.as_expected, found.output
