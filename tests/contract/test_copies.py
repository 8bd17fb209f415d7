"""Mixed sessions are equal in every store that they are copied to, by nothing but abilities."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contract import stores
from contract.copies import copy_store, digest, source_and_targets
from contract.mixed_sessions import MAKERS, USERS, mixed_sessions
from session_history_hooks import Entry, Position, SessionKey
from session_history_hooks.testing import Connect
from session_history_hooks.testing.subject import opened

SESSIONS = 42


@pytest.mark.parametrize("kind", stores.KINDS)
def test_copies_in_every_store_are_equal_and_a_repeated_copy_writes_nothing(kind: str, tmp_path: Path) -> None:
    with source_and_targets(kind, tmp_path) as (connect, targets):
        asyncio.run(check_copies(connect, targets))


async def check_copies(connect: Connect, targets: dict[str, Connect]) -> None:
    async with mixed_sessions(connect, SESSIONS, large=2_000_000, long=20) as source:
        expected = await digest(source)
        assert expected.sessions == SESSIONS > 3 * len(MAKERS)
        assert len(expected.hashes) > len(USERS)
        for page, (kind, connect_to) in enumerate(targets.items(), start=3):
            async with opened(connect_to) as target:
                assert await copy_store(source, target, page=page) > SESSIONS
                assert await digest(target) == expected, kind
                assert await copy_store(source, target) == 0


async def test_copy_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    with stores.store("memory", tmp_path) as connect, stores.store("sqlite", tmp_path) as connect_to:
        async with opened(connect) as source, opened(connect_to) as target:
            key = SessionKey("u", "s")
            for seq in range(9):
                await source.append(key, Entry(f"e{seq}", b""), at=Position(0, seq))
                if seq in {3, 6}:
                    assert await copy_store(source, target, page=3) == 2
            assert await copy_store(source, target, page=3) == 1
            assert await digest(target) == await digest(source)


async def test_digests_of_different_sessions_differ(tmp_path: Path) -> None:
    digests = []
    for payload, session in ((b"a", "s"), (b"b", "s"), (b"a", "t")):
        with stores.store("memory", tmp_path) as connect:
            async with opened(connect) as provider:
                await provider.append(SessionKey("u", session), Entry("e", payload, origin="o"), at=Position(0, 0))
                digests.append((await digest(provider)).hashes["u"])
    assert len(set(digests)) == 3
