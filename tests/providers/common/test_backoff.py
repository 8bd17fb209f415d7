"""Pauses between two tries."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from session_history.providers.common.backoff import pauses


def test_pauses_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, high: high)
    assert list(islice(pauses(1, 5), 5)) == [1, 2, 4, 5, 5]


def test_pauses_with_growth_grow_by_that_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, high: high)
    assert list(islice(pauses(2, 5, growth=1.5), 4)) == [2, 3, 4.5, 5]


def test_pauses_differ_within_a_fifth_and_the_whole_length() -> None:
    found = [next(pauses(1, 1)) for _ in range(1000)]
    assert all(0.2 <= pause <= 1 for pause in found)
    assert min(found) < 0.3
    assert max(found) > 0.9


def test_pauses_after_thousands_of_tries_are_the_longest() -> None:
    assert 0.2 * 4 <= next(islice(pauses(0.5, 4), 5000, None)) <= 4
