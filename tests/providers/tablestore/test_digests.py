"""The digests by which a head remembers ids and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_history.providers.tablestore.digests import DIGEST_BYTES, REMEMBERED_IDS, IdDigests
from session_history_hooks import ENTRY_KEYS


def of(entries: list[list[str]]) -> IdDigests:
    ids = IdDigests()
    for names in entries:
        ids = ids.add(names)
    return ids


@given(st.lists(st.integers(0, ENTRY_KEYS) | st.just(0), max_size=60), st.integers(0, 300))
def test_newest_ids_and_keys_are_found_at_their_entries(counts: list[int], plain: int) -> None:
    entries = [
        [f"e{number}", *(f"k{number}.{part}" for part in range(keys))]
        for number, keys in enumerate([*counts, *[0] * plain])
    ]
    ids = of(entries)
    remembered = entries[len(entries) - ids.entries :]
    for number, names in enumerate(remembered):
        assert [ids.find(name) for name in names] == [[number]] * len(names)
    assert all(ids.find(name) == [] for names in entries[: len(entries) - ids.entries] for name in names)
    total = sum(map(len, entries))
    assert min(total, REMEMBERED_IDS) <= sum(map(len, remembered)) < REMEMBERED_IDS + ENTRY_KEYS + 1
    assert len(ids.digests) == sum(map(len, remembered)) * DIGEST_BYTES


@pytest.mark.parametrize("count", [1, REMEMBERED_IDS - 1, REMEMBERED_IDS, REMEMBERED_IDS + 1])
def test_entries_without_keys_need_no_counts(count: int) -> None:
    ids = of([["old", "key"], *([f"e{number}"] for number in range(count))])
    forgotten = max(count - REMEMBERED_IDS + 1, 0)
    assert (ids.counts == b"") == (forgotten > 0)
    assert ids.entries == count + 1 - forgotten
    assert ids.find(f"e{count - 1}") == [ids.entries - 1]


def test_name_of_several_entries_is_found_at_each() -> None:
    assert of([["a"], ["b", "a"], ["c"], ["a"]]).find("a") == [0, 1, 3]
