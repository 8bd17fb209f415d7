"""``make capacity`` weighs what it says."""

from __future__ import annotations

import pytest

from bench.capacity import Scales
from bench.turns import PAYLOAD, size, turn_of


def test_a_turn_of_a_given_size() -> None:
    assert size(turn_of(PAYLOAD)) == PAYLOAD
    assert size(turn_of(9_000)) == 9_000


async def test_the_weights_on_sqlite() -> None:
    (turn, _session), (cpu, _), (unknown, _) = (await Scales(4_000).weigh("sqlite", 48)).values()
    assert 4_000 < turn < 6_000
    assert 0 < cpu < unknown


async def test_the_weights_on_tablestore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "ak")
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "sk")
    weights = await Scales(PAYLOAD).weigh("tablestore", 16)
    assert [weights[name] for name in ("requests", "read units", "write units")] == [(2, 1), (3, 0), (2, 0)]
    assert PAYLOAD < weights["bytes kept in the table"][0] < 1.5 * PAYLOAD
