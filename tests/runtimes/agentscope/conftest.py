"""Fixtures of the tests of AgentScope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product

import pytest

from runtimes.agentscope.support import Cast
from session_history import SessionHistoryService
from session_history.providers.memory import MemoryProvider

SAVES = ("turn", "step")
LIVES = ("lasting", "fresh")

ALL_CASTS = list(product(SAVES, LIVES))
SOME_CASTS = [("turn", "fresh"), ("step", "lasting")]
"""Each way to save once, and each life of an agent once."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cast" in metafunc.fixturenames:
        # After a failure the store and the agent may disagree, which depends on both: such tests take every pair.
        every = metafunc.definition.get_closest_marker("every_cast")
        metafunc.parametrize("cast", ALL_CASTS if every else SOME_CASTS, indirect=True, ids="-".join)


@pytest.fixture(params=SAVES)
def save(request: pytest.FixtureRequest) -> str:
    """Return how often the middleware saves."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def cast(request: pytest.FixtureRequest) -> AsyncIterator[Cast]:
    """Agents on one store, where a fresh agent has a service of its own, as in another process."""
    save, life = request.param
    store = MemoryProvider()
    made = Cast(lambda: SessionHistoryService(store), save=save, lasting=life == "lasting")
    yield made
    await made.close()
