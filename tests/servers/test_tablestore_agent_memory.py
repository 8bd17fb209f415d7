"""A library that knows nothing of this project stores its sessions and messages on the test server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tablestore import AsyncOTSClient, FieldSchema, FieldType, OTSServiceError
from tablestore_for_agent_memory.base.base_memory_store import Message, Session
from tablestore_for_agent_memory.base.common import MetaType, Order
from tablestore_for_agent_memory.base.filter import Filters
from tablestore_for_agent_memory.memory.async_memory_store import AsyncMemoryStore
from tablestore_for_agent_memory.util.tablestore_helper import TablestoreHelper

from servers.tablestore import TablestoreServer
from servers.tablestore_client import async_client


@pytest.fixture
async def client() -> AsyncIterator[AsyncOTSClient]:
    with TablestoreServer() as server:
        yield async_client(server)


@pytest.fixture
async def memory(client: AsyncOTSClient) -> AsyncIterator[AsyncMemoryStore]:
    metadata = {"title": MetaType.STRING, "count": MetaType.INTEGER}
    store = AsyncMemoryStore(
        tablestore_client=client,
        session_secondary_index_meta=metadata,
        session_search_index_schema=[FieldSchema("title", FieldType.KEYWORD)],
    )
    await store.init_table()
    yield store
    await store.close()


def session(number: int, user: str = "ü", **metadata: Any) -> Session:
    found = {"title": f"第{number}", "count": number, **metadata}
    return Session(user_id=user, session_id=f"s{number}", update_time=1000 + number, metadata=found)


def message(number: int, in_session: str = "s1", **metadata: Any) -> Message:
    return Message(
        session_id=in_session,
        message_id=f"m{number}",
        create_time=5000 + number,
        content=f"内容 {number}",
        metadata={"even": number % 2 == 0, **metadata},
    )


async def listed(found: Any) -> list[Any]:
    return [item async for item in await found]


async def test_init_table_twice_creates_the_tables_once(memory: AsyncMemoryStore, client: AsyncOTSClient) -> None:
    await memory.init_table()
    described = await client.describe_table("session")
    assert [index.index_name for index in described.secondary_indexes] == ["session_secondary_index"]
    assert await client.list_table() == ("message", "session")


async def test_session_is_put_updated_listed_and_deleted(memory: AsyncMemoryStore) -> None:
    for number in range(5):
        await memory.put_session(session(number, score=0.5, raw=bytearray(b"\xff")))
    await memory.put_session(session(9, user="other"))
    assert await memory.get_session("ü", "s3") == session(3, score=0.5, raw=bytearray(b"\xff"))
    assert await memory.get_session("ü", "none") is None
    assert [found.session_id for found in await listed(memory.list_sessions("ü"))] == ["s0", "s1", "s2", "s3", "s4"]
    changed = session(3, title="changed")
    changed.update_time = 9999
    await memory.update_session(changed)
    recent = await listed(memory.list_recent_sessions("ü", max_count=2))
    assert [(found.session_id, found.metadata["title"]) for found in recent] == [("s3", "changed"), ("s4", "第4")]
    await memory.delete_session("ü", "s3")
    assert [found.session_id for found in await listed(memory.list_recent_sessions("ü"))] == ["s4", "s2", "s1", "s0"]
    await memory.delete_sessions("ü")
    assert [found.session_id for found in await listed(memory.list_all_sessions())] == ["s9"]


async def test_recent_sessions_are_listed_in_pages(memory: AsyncMemoryStore) -> None:
    for number in range(7):
        await memory.put_session(session(number))
    pages: list[list[str]] = []
    token = None
    while not pages or token is not None:
        page = await memory.list_recent_sessions_paginated("ü", page_size=3, next_token=token)
        pages.append([found.session_id for found in page.hits])
        token = page.next_token
    assert pages == [["s6", "s5", "s4"], ["s3", "s2", "s1"], ["s0"]]
    between = memory.list_recent_sessions("ü", inclusive_start_update_time=1005, inclusive_end_update_time=1002)
    assert [found.session_id for found in await listed(between)] == ["s5", "s4", "s3", "s2"]


async def test_metadata_filter_selects_sessions(memory: AsyncMemoryStore) -> None:
    for number in range(6):
        await memory.put_session(session(number))
    either = Filters.logical_or([Filters.eq("title", "第1"), Filters.gte("count", 4)])
    both = Filters.logical_and([either, Filters.logical_not([Filters.eq("count", 5)])])
    found = await listed(memory.list_recent_sessions("ü", metadata_filter=both, batch_size=1))
    assert [one.session_id for one in found] == ["s4", "s1"]


async def test_message_is_put_listed_in_both_orders_and_deleted(memory: AsyncMemoryStore) -> None:
    for number in range(150):
        await memory.put_message(message(number))
    await memory.put_message(message(0, in_session="s2"))
    assert await memory.get_message("s1", "m7", 5007) == message(7)
    assert await memory.get_message("s1", "m7") == message(7)  # through the index
    forward = await listed(memory.list_messages("s1", order=Order.ASC, batch_size=40))
    assert forward == [message(number) for number in range(150)]
    assert await listed(memory.list_messages("s1")) == forward[::-1]
    odd = Filters.eq("even", False)
    assert len(await listed(memory.list_messages("s1", metadata_filter=odd, batch_size=40))) == 75
    page = await memory.list_messages_paginated("s1", page_size=10)
    assert [found.message_id for found in page.hits] == [f"m{number}" for number in range(149, 139, -1)]
    page = await memory.list_messages_paginated("s1", page_size=1, next_token=page.next_token)
    assert [found.message_id for found in page.hits] == ["m139"]
    await memory.update_message(message(3, changed=True))
    assert (await memory.get_message("s1", "m3", 5003)).metadata["changed"] is True
    await memory.delete_message("s1", "m3")
    assert await memory.get_message("s1", "m3") is None
    await memory.delete_messages("s1")
    assert [(found.session_id, found.message_id) for found in await listed(memory.list_all_messages())] == [
        ("s2", "m0")
    ]


async def test_batch_above_the_limit_is_refused(memory: AsyncMemoryStore) -> None:
    """The library puts the rows after the first 200 into the same batch. On the service this fails as well."""
    for number in range(201):
        await memory.put_message(message(number))
    with pytest.raises(OTSServiceError, match="Rows count"):
        await memory.delete_messages("s1")
    assert len(await listed(memory.list_messages("s1"))) == 1


async def test_delete_of_a_session_deletes_its_messages(memory: AsyncMemoryStore) -> None:
    for in_session in ("s1", "s2"):
        for number in range(3):
            await memory.put_message(message(number, in_session))
    await memory.put_session(session(1))
    await memory.delete_session_and_messages("ü", "s1")
    assert await listed(memory.list_all_sessions()) == []
    assert {found.session_id for found in await listed(memory.list_all_messages())} == {"s2"}


async def test_search_index_is_refused(memory: AsyncMemoryStore) -> None:
    with pytest.raises(OTSServiceError, match="OTSUnsupportOperation"):
        await memory.init_search_index()


@pytest.mark.usefixtures("memory")
async def test_tables_of_the_library_can_be_deleted(client: AsyncOTSClient) -> None:
    for table, index in (("session", "session_secondary_index"), ("message", "message_secondary_index")):
        await client.delete_secondary_index(table, index)
        await TablestoreHelper.async_delete_table(client, table)
    assert await client.list_table() == ()
