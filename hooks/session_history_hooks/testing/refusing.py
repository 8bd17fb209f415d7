"""Tests of entries and rewrites that are not valid, and of the texts of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from session_history_hooks import (
    ENTRY_KEYS,
    KEY_BYTES,
    ORIGIN_CHARACTERS,
    TEXT_BYTES,
    Entry,
    InvalidKey,
    LimitExceeded,
    Position,
    SessionHistoryProvider,
)
from session_history_hooks.testing.subject import KEY, Subject, append, entry, fill, read, rewrite

INVALID_ORIGINS: list[Any] = ["", " ", "a b", "é", "a\n", "\0", "\x7f", "x" * (ORIGIN_CHARACTERS + 1), None, 7]

INVALID_KEYS: list[Any] = [
    ("",),
    (" ",),
    ("a\0b",),
    ("\ud800",),
    ("k" * (KEY_BYTES + 1),),
    ("k", "k"),
    ("k", "new"),
    (7,),
]
"""Keys that an entry with the id ``new`` cannot have."""

LONG_TEXTS = ["x" * (TEXT_BYTES + 1), "é" * (TEXT_BYTES // 2 + 1)]


class RefusingContract(Subject):
    """Appends and rewrites that are refused before anything is written."""

    async def test_append_with_an_invalid_origin_is_refused(self, provider: SessionHistoryProvider) -> None:
        await check_refused(provider, InvalidKey, [Entry("new", b"x", origin=origin) for origin in INVALID_ORIGINS])

    async def test_append_with_invalid_keys_is_refused(self, provider: SessionHistoryProvider) -> None:
        await check_refused(provider, InvalidKey, [Entry("new", b"x", keys=keys) for keys in INVALID_KEYS])

    async def test_append_with_too_many_keys_is_refused(self, provider: SessionHistoryProvider) -> None:
        keys = tuple(f"k{number}" for number in range(ENTRY_KEYS + 1))
        await check_refused(provider, LimitExceeded, [Entry("new", b"x", keys=keys)])

    async def test_append_with_an_invalid_text_is_refused(self, provider: SessionHistoryProvider) -> None:
        await check_refused(provider, LimitExceeded, [Entry("new", b"x", text=text) for text in LONG_TEXTS])
        await provider.delete(KEY)
        with pytest.raises(InvalidKey):
            await provider.append(KEY, Entry("new", b"x", text="\ud800"), at=Position(1, 0))
        assert (await read(provider)).head.deleted

    async def test_rewrite_with_an_invalid_id_or_text_is_refused(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        before = await read(provider)
        for rewrite_id in INVALID_ORIGINS:
            with pytest.raises(InvalidKey):
                await rewrite(provider, 1, rewrite_id=rewrite_id)
        for text in LONG_TEXTS:
            long = replace(entry(1), text=text)
            with pytest.raises(LimitExceeded):
                await provider.rewrite(KEY, long, at=Position(0, 1), rewrite_id="r1", last_rewrite_id="", snapshot=None)
        assert await read(provider) == before

    @pytest.mark.parametrize("text", ["", "\0", "é" * (TEXT_BYTES // 2)])
    async def test_reads_return_no_text(self, provider: SessionHistoryProvider, text: str) -> None:
        await provider.append(KEY, replace(entry(1), text=text), at=Position(0, 0))
        await append(provider, 2)
        log = await read(provider, entry_id="e1")
        assert log.entries == (entry(1), entry(2))
        assert log.match == (1, entry(1))
        new = replace(entry(1, b"new"), text=text)
        await provider.rewrite(KEY, new, at=Position(0, 1), rewrite_id="r1", last_rewrite_id="", snapshot=None)
        log = await read(provider, entry_id="e1")
        assert log.entries == (entry(1, b"new"), entry(2))
        assert log.match == (1, entry(1, b"new"))

    async def test_replay_with_another_text_is_a_replay(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        again = await provider.append(KEY, replace(entry(1), text="words"), at=Position(0, 1))
        assert again.replayed is True
        assert (await read(provider)).entries == (entry(1),)


async def check_refused(provider: SessionHistoryProvider, error: type[Exception], entries: Sequence[Entry]) -> None:
    """Check that no append stores these entries: not as first ones, nor behind others, nor where others stand."""
    for new in entries:
        with pytest.raises(error):
            await provider.append(KEY, new, at=Position(0, 0))
    assert await provider.read(KEY) is None
    await fill(provider, 2)
    before = await read(provider)
    for new in entries:
        for seq in (1, 2):
            with pytest.raises(error):
                await provider.append(KEY, new, at=Position(0, seq))
    assert await read(provider) == before
