"""Pages of a listing in which some rows are damaged, and checks of stored values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from session_history_hooks import Corrupt, Entry, Head, ListingCursor, Log, Position, SessionKey, Shard, StoreInfo
from session_history_hooks.stored import (
    ListedRow,
    checked_entry,
    checked_head,
    checked_info,
    checked_log,
    listed_page,
    listed_users,
)

HEAD = Head(
    SessionKey("u", "s"),
    Position(0, 1),
    "o",
    deleted=False,
    heartbeat=0,
    rewrite_id="",
    active_us=5,
    changed_us=5,
    snapshot=None,
)


def sound(number: int) -> ListedRow:
    key = SessionKey("u", f"s{number}")
    return ListedRow(key, replace(HEAD, key=key), number)


DAMAGED = ListedRow(SessionKey("u", "bad"), None, 7)
UNPLACED = ListedRow(SessionKey("u", "lost"), None, None)
UNNAMED = ListedRow(None, None, 7)


@pytest.mark.parametrize(
    ("rows", "more", "shown", "ends_at"),
    [
        ([sound(1), sound(2)], False, 2, None),
        ([sound(1), sound(2), sound(3)], False, 2, sound(2)),
        ([sound(1), sound(2)], True, 2, sound(2)),
        ([sound(1), DAMAGED, sound(3)], False, 1, DAMAGED),
        ([sound(1), UNPLACED, sound(3)], True, 2, sound(3)),
        ([sound(1), UNNAMED, UNPLACED], True, 1, sound(1)),
        ([UNNAMED, UNPLACED], False, 0, None),
        ([], False, 0, None),
    ],
)
def test_page_ends_with_a_row_that_a_cursor_can_name(
    rows: list[ListedRow], more: bool, shown: int, ends_at: ListedRow | None
) -> None:
    page = listed_page(rows, 2, more=more)
    assert page is not None
    assert len(page.heads) == shown
    expected = None
    if ends_at and ends_at.key and ends_at.place is not None:
        expected = ListingCursor(ends_at.place, ends_at.key.session_id).encode()
    assert page.cursor == expected


def test_page_of_rows_that_no_cursor_can_name_needs_more_rows() -> None:
    assert listed_page([UNNAMED, UNPLACED], 2, more=True) is None
    assert listed_users([b"\xff", " "], 2, more=True) is None


def test_page_names_what_it_cannot_show() -> None:
    page = listed_page([DAMAGED, UNNAMED, sound(1)], 3, more=False)
    assert page is not None
    assert (page.unreadable, page.unnamed) == ((SessionKey("u", "bad"),), 1)
    users = listed_users(["a", b"\xff", "b"], 3, more=False)
    assert users is not None
    assert (users.user_ids, users.unnamed) == (("a", "b"), 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tail", Position(-1, 1)),
        ("tail", Position(0, 0)),
        ("tail", Position(0, 8)),
        ("tail", Position(0, True)),
        ("tail_origin", ""),
        ("tail_origin", b"o"),
        ("deleted", 1),
        ("deleted", True),
        ("heartbeat", 1.0),
        ("rewrite_id", None),
        ("active_us", -1),
        ("changed_us", 2**62),
    ],
)
def test_head_with_a_wrong_value_is_corrupt(name: str, value: Any) -> None:
    assert checked_head(HEAD, entries=7) is HEAD
    with pytest.raises(Corrupt, match="session_id='s'"):
        checked_head(replace(HEAD, **{name: value}), entries=7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", b"e"), ("payload", "x"), ("origin", None), ("keys", (1,)), ("keys", ("\ud800",)), ("bookkeeping", 1)],
)
def test_entry_with_a_wrong_value_is_corrupt(name: str, value: Any) -> None:
    entry = Entry("e", b"x", keys=("k",))
    assert checked_entry(entry, HEAD.key, 3) is entry
    with pytest.raises(Corrupt, match=f"entry 3 of .* no valid {name}"):
        checked_entry(replace(entry, **{name: value}), HEAD.key, 3)


def test_log_whose_newest_entry_is_another_one_is_corrupt() -> None:
    log = Log(HEAD, 1, (Entry("e", b"", origin="o"),))
    assert checked_log(log) is log
    with pytest.raises(Corrupt):
        checked_log(replace(log, entries=(Entry("e", b"", origin="p"),)))


@pytest.mark.parametrize("info", [StoreInfo("", 1), StoreInfo("i", 0), StoreInfo("i", 1, Shard(0, 1.5))])  # type: ignore[arg-type]
def test_identity_that_is_not_valid_is_corrupt(info: StoreInfo) -> None:
    with pytest.raises(Corrupt):
        checked_info(info)
