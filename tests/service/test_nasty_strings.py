"""Any text is an id, a title or a message, means nothing but itself, and never leads to another user's data."""

from __future__ import annotations

import asyncio
import base64
import enum
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_history import (
    InMemorySessionHistoryService,
    Message,
    Session,
    SessionHistoryService,
    SqliteSessionHistoryService,
    with_session_history,
)
from session_history.errors import InvalidCursor, InvalidKey
from session_history.providers.memory import LIMITS
from session_history_hooks import (
    Appended,
    Entry,
    Head,
    ListingCursor,
    Log,
    Page,
    Position,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
)
from support import json_lines, same

AT_ONCE = 512

WORKED = "worked"
Outcomes = dict[tuple[str, str], str]
"""What became of each string in each role: it worked, or the error and its reason."""


def strings_of(corpus: Path, folder: str) -> list[str]:
    return [line["s"] for line in json_lines(corpus / "data" / folder / "strings.jsonl")]


@pytest.fixture(scope="module")
def naughty(shared: Path) -> list[str]:
    return strings_of(shared, "naughty-strings")


def each_kind(folder: Path) -> list[SessionHistoryService]:
    return [InMemorySessionHistoryService(), SqliteSessionHistoryService(folder / "history.db")]


def batches(strings: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(strings), AT_ONCE):
        yield strings[start : start + AT_ONCE]


async def outcome(work: Awaitable[None]) -> str:
    try:
        await work
    except InvalidKey as refusal:
        return f"InvalidKey: {refusal.reason}"
    return WORKED


async def try_each(role: str, strings: list[str], work: Callable[[str], Awaitable[None]]) -> Outcomes:
    outcomes: Outcomes = {}
    for batch in batches(strings):
        found = await asyncio.gather(*[outcome(work(string)) for string in batch])
        outcomes |= {(role, string): result for string, result in zip(batch, found, strict=True)}
    return outcomes


def worked(outcomes: Outcomes) -> set[str]:
    return {string for (_, string), result in outcomes.items() if result == WORKED}


def summary(outcomes: Outcomes) -> str:
    counts = Counter((role, result) for (role, _), result in outcomes.items())
    return ", ".join(f"{role}: {number} {result}" for (role, result), number in sorted(counts.items()))


async def as_ids(service: SessionHistoryService, strings: list[str]) -> Outcomes:
    """Each string as a user's id, as the id of this user's only session, and as its title."""

    async def begin(string: str) -> None:
        # A blank session id would be replaced here, and is refused everywhere else.
        service.turn("a user", string)
        await service.create_session(string, string, title=string)

    async def look(string: str) -> None:
        listed = await service.list_sessions(string, limit=2)
        assert [(session.user_id, session.id, session.title) for session in listed] == [(string, string, string)]

    outcomes = await try_each("id", strings, begin)
    assert worked(await try_each("id", strings, look)) == worked(outcomes)
    return outcomes


async def as_ids_of_one_user(service: SessionHistoryService, strings: list[str]) -> Outcomes:
    """Each string as a session id of the same user. Two that were taken for one would raise SessionExists."""

    async def begin(string: str) -> None:
        service.turn("one user", string)
        await service.create_session("one user", string)

    outcomes = await try_each("id of one user", strings, begin)
    listed = [session.id for session in await service.list_sessions("one user")]
    assert len(listed) == len(worked(outcomes))
    assert set(listed) == worked(outcomes)
    return outcomes


async def as_texts(service: SessionHistoryService, strings: list[str]) -> None:
    messages = [{"role": "user", "content": string} for string in strings]
    session = await service.create_session("writer", "texts")
    for start in range(0, len(messages), AT_ONCE):
        await service.append_message(session, messages[start : start + AT_ONCE])
    kept = await service.get_session("writer", "texts", native=True)
    assert kept is not None
    assert same(kept.messages, messages)
    read = await service.get_session("writer", "texts")
    assert read is not None
    assert [message.text for message in read.messages] == strings


def easily_confused(strings: list[str]) -> list[str]:
    """The strings that are not the only ones of their kind once spelling, case and edges are smoothed out."""
    smooth = {string: normalize("NFKC", string).casefold().strip() for string in strings}
    counts = Counter(smooth.values())
    return [string for string in strings if counts[smooth[string]] > 1]


async def outcomes_of(service: SessionHistoryService, strings: list[str]) -> Outcomes:
    async with service:
        await as_texts(service, strings)
        # All of many would take long, and those that are not alike can hardly be confused.
        some = strings if len(strings) < 1000 else easily_confused(strings)
        return await as_ids(service, strings) | await as_ids_of_one_user(service, some)


@pytest.mark.parametrize("folder", ["naughty-strings", "unicode-strings"])
async def test_every_string_works_or_is_refused_alike(folder: str, shared: Path, tmp_path: Path) -> None:
    strings = strings_of(shared, folder)
    assert len(set(strings)) == len(strings) > 100
    in_memory, in_sqlite = [await outcomes_of(service, strings) for service in each_kind(tmp_path)]
    print(folder, "-", summary(in_memory))
    assert in_memory == in_sqlite
    unfit = {string for string in strings if not string.strip() or "\0" in string}
    assert worked(in_memory) == set(strings) - unfit
    assert set(in_memory.values()) <= {WORKED, "InvalidKey: must not be blank", "InvalidKey: must not contain NUL"}


async def in_every_place(service: SessionHistoryService, string: str) -> None:
    """One string as user, session, turn, title, key and value at once."""
    said = {"role": "user", "content": string, string: {string: [string]}}
    async with service.turn(string, string, turn_id=string, native=True) as turn:
        turn.add(said)
    await service.update_session(string, string, title=string, metadata={string: string})
    async with service.turn(string, string, turn_id=string, native=True) as again:
        assert again.recorded is not None
        assert same(again.recorded, [said])
    await looks_whole(service, string)


async def looks_whole(service: SessionHistoryService, string: str) -> None:
    said = {"role": "user", "content": string, string: {string: [string]}}
    [listed] = await service.list_sessions(string)
    session = await service.get_session(string, string, native=True)
    assert session is not None
    for shown in (listed, session):
        assert (shown.user_id, shown.id, shown.title) == (string, string, string)
        assert same(shown.metadata, {string: string})
        assert shown.turns == 1
    assert same(session.messages, [said])


async def test_naughty_strings_in_every_place(naughty: list[str], service: SessionHistoryService) -> None:
    outcomes = await try_each("every place", naughty, lambda string: in_every_place(service, string))
    print(summary(outcomes))
    kept = [string for string in naughty if string in worked(outcomes)]
    for gone in kept[::2]:
        assert await service.delete_user(gone) == 1
    for string in kept[1::2]:
        await looks_whole(service, string)
    for string in kept[::2]:
        assert await service.list_sessions(string) == []
        assert await service.get_session(string, string) is None


class Text(str):
    """A text shown otherwise than it reads."""

    __slots__ = ()

    def __str__(self) -> str:
        return "somebody else"


class Member(str, enum.Enum):  # noqa: UP042 - how people wrote a StrEnum before there was one
    ALICE = "alice"


UNFIT = [
    ("", "must not be blank"),
    (" ", "must not be blank"),
    ("\t\n\u2003\u3000", "must not be blank"),
    ("a" * 513, "must have at most 512 UTF-8 bytes, not 513"),
    ("ü" * 256 + "a", "must have at most 512 UTF-8 bytes, not 513"),
    ("語" * 171, "must have at most 512 UTF-8 bytes, not 513"),
    ("😀" * 128 + "a", "must have at most 512 UTF-8 bytes, not 513"),
    ("\0", "must not contain NUL"),
    ("alice\0bob", "must not contain NUL"),
    ("\ud800", "must not contain a lone surrogate"),
    ("alice\udfff", "must not contain a lone surrogate"),
    ("\ud83d\ude00", "must not contain a lone surrogate"),
    (None, "must be a str, not NoneType"),
    (b"alice", "must be a str, not bytes"),
    (7, "must be a str, not int"),
    (("alice", "s"), "must be a str, not tuple"),
]

LONGEST = ["a" * 512, "ü" * 256, "語" * 170 + "ab", "😀" * 128]


class Untouchable:
    """A store that must not be reached."""

    limits = LIMITS

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _reached(self, call: str) -> AssertionError:
        self.calls.append(call)
        return AssertionError(f"the store was reached: {call}")

    async def start(self) -> None:
        raise self._reached("start")

    async def stop(self) -> None:
        raise self._reached("stop")

    async def health(self) -> bool:
        raise self._reached("health")

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        raise self._reached("store_info")

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        raise self._reached("read")

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        raise self._reached("append")

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        raise self._reached("renew")

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        raise self._reached("rewrite")

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        raise self._reached("list")

    async def delete(self, key: SessionKey) -> bool:
        raise self._reached("delete")

    async def delete_user(self, user_id: str) -> int:
        raise self._reached("delete_user")


Call = Callable[[SessionHistoryService, Any], Awaitable[object]]


async def append_to(service: SessionHistoryService, user_id: Any, session_id: Any) -> None:
    session = Session.model_construct(id=session_id, user_id=user_id, messages=[])
    await service.append_message(session, {"role": "user", "content": "Hello"})


async def open_turn(service: SessionHistoryService, user_id: Any, session_id: Any, turn_id: Any = None) -> None:
    async with service.turn(user_id, session_id, turn_id=turn_id) as turn:
        turn.add({"role": "user", "content": "Hello"})


async def call_handler(service: SessionHistoryService, user_id: Any, session_id: Any, turn_id: Any = None) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> str:
        raise AssertionError("the handler was called")

    await handler("Hello", user_id=user_id, session_id=session_id, turn_id=turn_id)


async def stream_handler(service: SessionHistoryService, user_id: Any, session_id: Any) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> Any:
        yield "the handler was called"

    assert not [piece async for piece in handler("Hello", user_id=user_id, session_id=session_id)]


WITH_USER_ID: dict[str, Call] = {
    "create_session": lambda service, bad: service.create_session(bad, "s"),
    "create_session, no id": lambda service, bad: service.create_session(bad),
    "get_session": lambda service, bad: service.get_session(bad, "s"),
    "update_session": lambda service, bad: service.update_session(bad, "s", title="t"),
    "list_sessions": lambda service, bad: service.list_sessions(bad),
    "append_message": lambda service, bad: append_to(service, bad, "s"),
    "delete_session": lambda service, bad: service.delete_session(bad, "s"),
    "delete_user": lambda service, bad: service.delete_user(bad),
    "turn": lambda service, bad: open_turn(service, bad, "s"),
    "handler": lambda service, bad: call_handler(service, bad, "s"),
    "stream": lambda service, bad: stream_handler(service, bad, "s"),
}

WITH_SESSION_ID: dict[str, Call] = {
    "get_session": lambda service, bad: service.get_session("u", bad),
    "update_session": lambda service, bad: service.update_session("u", bad, title="t"),
    "append_message": lambda service, bad: append_to(service, "u", bad),
    "delete_session": lambda service, bad: service.delete_session("u", bad),
    "turn": lambda service, bad: open_turn(service, "u", bad),
    "handler": lambda service, bad: call_handler(service, "u", bad),
    "stream": lambda service, bad: stream_handler(service, "u", bad),
}

WITH_TURN_ID: dict[str, Call] = {
    "turn": lambda service, bad: open_turn(service, "u", "s", bad),
    "handler": lambda service, bad: call_handler(service, "u", "s", bad),
}


async def assert_refused(field: str, calls: dict[str, Call], bad: object, reason: str) -> None:
    store = Untouchable()
    for name, call in calls.items():
        with pytest.raises(InvalidKey) as refusal:
            await call(SessionHistoryService(store), bad)
        assert (name, refusal.value.field, refusal.value.reason) == (name, field, reason)
    assert store.calls == []


@pytest.mark.parametrize(("bad", "reason"), UNFIT, ids=ascii)
async def test_unfit_user_id_never_reaches_the_store(bad: object, reason: str) -> None:
    await assert_refused("user_id", WITH_USER_ID, bad, reason)


@pytest.mark.parametrize(("bad", "reason"), UNFIT, ids=ascii)
async def test_unfit_session_id_never_reaches_the_store(bad: object, reason: str) -> None:
    await assert_refused("session_id", WITH_SESSION_ID, bad, reason)


@pytest.mark.parametrize(("bad", "reason"), [case for case in UNFIT if case[0] is not None], ids=ascii)
async def test_unfit_turn_id_never_reaches_the_store(bad: object, reason: str) -> None:
    await assert_refused("turn_id", WITH_TURN_ID, bad, reason)


BLANK = "must not be blank"


@pytest.mark.parametrize(
    ("bad", "reason"), [case for case in UNFIT if case[0] is not None and case[1] != BLANK], ids=ascii
)
async def test_create_session_takes_no_unfit_id(bad: object, reason: str) -> None:
    calls: dict[str, Call] = {"create_session": lambda service, value: service.create_session("u", value)}
    await assert_refused("session_id", calls, bad, reason)


@pytest.mark.parametrize("longest", LONGEST, ids=ascii)
@pytest.mark.every_store
async def test_longest_keys_work(service: SessionHistoryService, longest: str) -> None:
    assert len(longest.encode()) == 512
    await in_every_place(service, longest)


async def begin_all(service: SessionHistoryService, keys: list[tuple[str, str]]) -> None:
    """Give each session a message that tells whose it is."""
    for user_id, session_id in keys:
        await append_to(service, user_id, session_id)
        await service.update_session(user_id, session_id, metadata={"user": user_id, "session": session_id})


async def assert_only(service: SessionHistoryService, keys: list[tuple[str, str]]) -> None:
    for user_id, session_id in keys:
        mine = sorted(session for user, session in keys if user == user_id)
        assert sorted(session.id for session in await service.list_sessions(user_id)) == mine
        session = await service.get_session(user_id, session_id)
        assert session is not None
        assert session.metadata == {"user": user_id, "session": session_id}
        assert len(session.messages) == 1


LOOKALIKES = [
    pytest.param(["é", "e\u0301"], id="NFC and NFD"),
    pytest.param(["Å", "A\u030a", "\u212b"], id="canonical singletons"),
    pytest.param(["ﬁ", "fi"], id="ligature"),
    pytest.param(["a", "A", "\u0430", "\uff41"], id="case, Cyrillic, full width"),
    pytest.param(["ß", "ss", "SS", "ẞ"], id="case folding"),
    pytest.param(["a", " a", "a ", "a\n", "a\u200b", "\ufeffa"], id="edges"),
    pytest.param(["1", "01", "1.0", "+1", "\uff11"], id="numbers"),
    pytest.param(["null", "None", "true", "NaN"], id="words"),
    pytest.param(["*", "%", "_", "?", "a*", "a%", "a_", "ab", "[a-z]"], id="patterns"),
    pytest.param(["a:b", "a/b", "a\\b", "a|b", "a;b", "a.b", "a\x1fb", "a%3Ab"], id="separators"),
    pytest.param(["'", '"', "''", "' OR '1'='1", "a'; DROP TABLE head; --", "`"], id="quotes"),
    pytest.param(["a\nb", "a\r\nb", "a\rb", "a\u2028b", "a\tb"], id="line breaks"),
    pytest.param(["../a", "./a", "/a", "a/", "a/../a"], id="paths"),
    pytest.param(["{a}", "{}", "{{a}}", "%s", "$a", "${a}"], id="templates"),
]


@pytest.mark.parametrize("alike", LOOKALIKES)
@pytest.mark.every_store
async def test_lookalikes_are_different_users_and_sessions(service: SessionHistoryService, alike: list[str]) -> None:
    assert len(set(alike)) == len(alike)
    keys = [(user_id, session_id) for user_id in alike for session_id in alike]
    await begin_all(service, keys)
    await assert_only(service, keys)


@pytest.mark.every_store
async def test_pairs_that_would_join_alike_are_different(service: SessionHistoryService) -> None:
    keys = [
        (user_id, session_id)
        for separator in (":", "/", "|", ",", "\x1f", "\n", "::", "\\", " ")
        for user_id, session_id in [
            ("a", f"b{separator}c"),
            (f"a{separator}b", "c"),
            (f"a{separator}", "b"),
            ("a", "b"),
        ]
    ]
    keys = sorted(set(keys))
    await begin_all(service, keys)
    await assert_only(service, keys)
    for user_id, session_id in keys[::2]:
        await service.delete_session(user_id, session_id)
    await assert_only(service, keys[1::2])


@pytest.mark.parametrize("pattern", ["*", "%", "_", "a%", "a*", "?", "' OR '1'='1"])
@pytest.mark.every_store
async def test_patterns_match_nobody(service: SessionHistoryService, pattern: str) -> None:
    others = [(user_id, session_id) for user_id in ("a", "ab", "b") for session_id in ("s", "t")]
    await begin_all(service, others)
    assert await service.list_sessions(pattern) == []
    assert await service.delete_user(pattern) == 0
    await service.delete_session(pattern, pattern)
    await service.delete_session("a", pattern)
    await begin_all(service, [(pattern, "s")])
    assert [session.id for session in await service.list_sessions(pattern)] == ["s"]
    assert await service.delete_user(pattern) == 1
    await assert_only(service, others)


@pytest.mark.parametrize("alias", [Member.ALICE, Text("alice")], ids=["enum", "subclass"])
async def test_subclass_of_str_is_one_user_everywhere(service: SessionHistoryService, alias: str) -> None:
    """Whichever text such an id stands for, all methods must agree on it."""
    session = await service.create_session(alias, "s")
    await service.append_message(session, {"role": "user", "content": "Hello"})
    read = await service.get_session(alias, "s")
    assert read is not None
    assert [message.text for message in read.messages] == ["Hello"]
    assert [listed.user_id for listed in await service.list_sessions(alias)] == [session.user_id]
    assert await service.delete_user(alias) == 1


@pytest.mark.parametrize("alias", [Member.ALICE, Text("alice")], ids=["enum", "subclass"])
async def test_subclass_of_str_stands_for_its_text(service: SessionHistoryService, alias: str) -> None:
    await begin_all(service, [("alice", "s"), ("somebody else", "s"), ("Member.ALICE", "s")])
    assert [listed.user_id for listed in await service.list_sessions(alias)] == ["alice"]
    session = await service.get_session(alias, "s")
    assert session is not None
    assert session.metadata["user"] == "alice"


async def fill_two_users(service: SessionHistoryService) -> None:
    """Five sessions of five turns each; the texts tell whose they are."""
    for user_id in ("mine", "theirs"):
        for number in range(5):
            for ordinal in range(5):
                async with service.turn(user_id, f"{number}") as turn:
                    turn.add({"role": "user", "content": f"{user_id} {number}.{ordinal}"})


async def listing_with(service: SessionHistoryService, cursor: Any) -> list[str]:
    """All that ``mine`` sees with this cursor, or nothing if it is refused."""
    seen: list[Session[Any]] = []
    try:
        while cursor is not None:
            page = await service.list_sessions("mine", limit=2, cursor=cursor)
            seen += page
            cursor = page.next_cursor
    except InvalidCursor:
        assert not seen
    assert {session.user_id for session in seen} <= {"mine"}
    return [session.id for session in seen]


async def scrolling_with(service: SessionHistoryService, cursor: Any) -> list[str]:
    """All that ``mine`` sees in session 0 with this cursor, or nothing if it is refused."""
    texts: list[str] = []
    try:
        while cursor is not None:
            session = await service.get_session("mine", "0", last_turns=2, before=cursor)
            assert session is not None
            texts[:0] = [message.text for message in session.messages]
            cursor = session.earlier
    except InvalidCursor:
        assert not texts
    assert all(text.startswith("mine 0.") for text in texts)
    return texts


@pytest.mark.every_store
async def test_foreign_cursor_of_a_list_shows_own_sessions_only(service: SessionHistoryService) -> None:
    await fill_two_users(service)
    for limit in range(1, 5):
        foreign = (await service.list_sessions("theirs", limit=limit)).next_cursor
        assert foreign is not None
        assert set(await listing_with(service, foreign)) <= {"0", "1", "2", "3", "4"}
        own = (await service.list_sessions("mine", limit=limit)).next_cursor
        assert await listing_with(service, own) == ["4", "3", "2", "1", "0"][limit:]


async def test_foreign_cursor_of_a_session_is_refused(service: SessionHistoryService) -> None:
    await fill_two_users(service)
    for session_id in ("0", "1"):
        for user_id in ("mine", "theirs"):
            session = await service.get_session(user_id, session_id, last_turns=2)
            assert session is not None
            assert session.earlier is not None
            is_own = (user_id, session_id) == ("mine", "0")
            shown = await scrolling_with(service, session.earlier)
            assert shown == (["mine 0.0", "mine 0.1", "mine 0.2"] if is_own else [])


async def test_cursor_of_a_former_life_is_refused(service: SessionHistoryService) -> None:
    await fill_two_users(service)
    session = await service.get_session("mine", "0", last_turns=1)
    assert session is not None
    await service.delete_session("mine", "0")
    await service.create_session("mine", "0")
    with pytest.raises(InvalidCursor):
        await service.get_session("mine", "0", before=session.earlier)


def listing_cursor(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


NO_CURSORS = [
    "",
    " ",
    "x",
    "theirs",
    "\0",
    "\ud800",
    "é",
    "=",
    "null",
    "[]",
    "9" * 1000,
    "[" * 100_000,
    5,
    b"x",
    1.5,
    ["x"],
]

FORGED_LISTINGS = [
    *NO_CURSORS,
    base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    *map(
        listing_cursor,
        [
            None,
            {"active_us": 1, "session_id": "0"},
            [1],
            [1, "0", "theirs"],
            ["1", "0"],
            [1.5, "0"],
            [True, "0"],
            [-1, "0"],
            [2**63, "0"],
            [10**400, "0"],
            [1, None],
            [1, 0],
            [1, ""],
            [1, "\0"],
            [1, "\ud800"],
            [1, "a" * 513],
        ],
    ),
]


@pytest.mark.parametrize("forged", FORGED_LISTINGS, ids=lambda value: ascii(value)[:40])
async def test_forged_cursor_of_a_list_is_refused(service: SessionHistoryService, forged: Any) -> None:
    await fill_two_users(service)
    with pytest.raises(InvalidCursor):
        await service.list_sessions("mine", cursor=forged)
    with pytest.raises(InvalidCursor):
        await service.list_sessions("mine", limit=1, cursor=forged)


@pytest.mark.parametrize(
    "forged",
    [
        *NO_CURSORS,
        "0",
        "0.0",
        "0.1.0.0",
        "-1.1.0",
        "0.-1.0",
        "0.1.0\n",
        " 0.1.0",
        "\uff10.\uff11.\uff10",
        f"0.{10**18}.0",
        "1.1.0",
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_forged_cursor_of_a_session_is_refused(service: SessionHistoryService, forged: Any) -> None:
    await fill_two_users(service)
    for last_turns in (None, 1):
        with pytest.raises(InvalidCursor):
            await service.get_session("mine", "0", last_turns=last_turns, before=forged)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(active_us=st.integers(0, 2**63 - 1), session_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
async def test_guessed_cursor_of_a_list_shows_own_sessions_only(
    service: SessionHistoryService, active_us: int, session_id: str
) -> None:
    if not await service.list_sessions("mine"):
        await fill_two_users(service)
    forged = ListingCursor(active_us, session_id).encode()
    assert set(await listing_with(service, forged)) <= {"0", "1", "2", "3", "4"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.tuples(st.integers(0, 1), st.integers(0, 10**18 - 1) | st.integers(0, 7), st.integers(0, 3)))
async def test_guessed_cursor_of_a_session_shows_own_messages_only(
    service: SessionHistoryService, place: tuple[int, int, int]
) -> None:
    if not await service.list_sessions("mine"):
        await fill_two_users(service)
    texts = await scrolling_with(service, "{}.{}.{}".format(*place))
    assert texts == [f"mine 0.{ordinal}" for ordinal in range(len(texts))]
