"""A store in Redis or Valkey, single or cluster, for any number of hosts, processes and event loops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from session_history.providers.common.loops import LoopLocal
from session_history.providers.common.options import validated
from session_history.providers.redis import scripts
from session_history.providers.redis.answers import store_info_of
from session_history.providers.redis.client import Client
from session_history.providers.redis.codec import FORMAT
from session_history.providers.redis.deletion import Deletion
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.list_range import PAGE
from session_history.providers.redis.options import SCHEMES, RedisOptions
from session_history.providers.redis.pieces import Pieces
from session_history.providers.redis.reading import PAGE_BYTES, Reader
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.startup_checks import check_store
from session_history.providers.redis.walks import Walks
from session_history.providers.redis.writing import Writer
from session_history_hooks import (
    Appended,
    Durability,
    Entry,
    Head,
    Limits,
    Log,
    Page,
    Position,
    ProviderSpec,
    Restorable,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    UserPage,
    Users,
    check_origin,
    check_restore,
    hookimpl,
    new_origin,
)


class RedisProvider:
    """Keeps sessions in Redis 7.0 or newer, or in Valkey.

    :param url: ``redis://host:port/database``, or ``redis+cluster://host:port`` for a cluster; ``rediss`` for TLS.
    :param prefix: the first part of the names of all keys; without braces.
    :param timeout: seconds after which a call that keeps failing raises ``Unavailable``.
    :param ttl: seconds after its last append for which a session is kept; ``None`` = without end. An append stores it.
    :param durability: the claim: ``"process"`` = an acknowledged append is in the memory of the server; ``"host"`` = in
        an append-only file of the server, with ``appendfsync`` ``no`` or ``always``; ``"disk"`` = with ``always``.
        ``start`` checks the server's settings.
    :param wait_replicas: number of replicas that must confirm an append before it is acknowledged.
    :param wait_timeout: seconds to wait for them, 1 if not given. After that the append raises ``Unavailable``.
    :param max_connections: connections of each event loop to each server.
    :param ssl_ca_certs: file of the authorities to trust, instead of the system's. This option and the next three
        require ``rediss``.
    :param ssl_certfile: file of the client's own certificate.
    :param ssl_keyfile: file of the key of that certificate.
    :param ssl_cert_reqs: ``"none"`` trusts any server; ``"required"`` if not given.
    :raises ConfigurationError: an option is not valid.

    All sessions of a user are in one slot of a cluster. Connections do not survive a fork: start the provider after it.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sh",
        timeout: float = 5.0,
        ttl: int | None = None,
        durability: Durability | Literal["process", "host", "disk"] = Durability.PROCESS,
        wait_replicas: int = 0,
        wait_timeout: float | None = None,
        max_connections: int = 32,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_cert_reqs: Literal["required", "none"] | None = None,
    ) -> None:
        given = {
            "url": url,
            "prefix": prefix,
            "timeout": timeout,
            "ttl": ttl,
            "durability": durability,
            "wait_replicas": wait_replicas,
            "wait_timeout": wait_timeout,
            "max_connections": max_connections,
            "ssl_ca_certs": ssl_ca_certs,
            "ssl_certfile": ssl_certfile,
            "ssl_keyfile": ssl_keyfile,
            "ssl_cert_reqs": ssl_cert_reqs,
        }
        self._options = validated(RedisOptions, {name: value for name, value in given.items() if value is not None})
        self._keys = Keys(self._options.prefix)
        self._runner = ScriptRunner(self._options, self._keys, self._client)
        pieces = Pieces(self._options, self._runner, self._keys)
        self._reader = Reader(self._runner, pieces)
        self._writer = Writer(self._options, self._keys, self._runner, pieces, self._reader)
        self._deletion = Deletion(self._runner, self._keys, pieces)
        self._walks = Walks(self._runner, self._keys, self._client)
        self._clients: LoopLocal[Client] | None = None
        self._limits = _limits(self._options.durability)

    def __repr__(self) -> str:
        return f"RedisProvider({self._options.redacted_url!r})"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        if self._is_open:
            return
        name, close_timeout = self._options.redacted_url, self._options.timeout + 1
        clients = LoopLocal(name, lambda: Client(self._options), close_timeout=close_timeout)
        try:
            await check_store(await clients.get(), self._options)
        except BaseException:
            await clients.close()
            raise
        if self._is_open:
            await clients.close()  # another start was faster
            return
        await self.stop()
        self._clients = clients

    async def stop(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.close()

    @property
    def _is_open(self) -> bool:
        return self._clients is not None and not self._clients.guard.inherited

    async def _client(self) -> Client:
        if self._clients is None:
            raise Unavailable(f"{self._options.redacted_url} is not open: the service was stopped, or never started")
        return await self._clients.get()

    async def health(self) -> bool:
        try:
            return await (await self._client()).ping()
        except Exception:
            return False

    def ability(self, kind: object) -> object | None:
        return self if kind in (Users, Restorable) else None

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        place = (f"{shard.number}/{shard.count}",) if shard else ()
        answer = await self._runner.run_on_user(scripts.STORE_INFO, [self._keys.store], new_origin(), FORMAT, *place)
        return store_info_of(answer)

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        return await self._reader.read(key, last=last, before=before, after=after, entry_id=entry_id)

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        return await self._writer.append(key, entry, at, tail_origin, snapshot)

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        return await self._writer.renew(key, at, tail_origin)

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
        self._limits.check(entry, snapshot)
        check_origin("rewrite_id", rewrite_id)
        return await self._writer.rewrite(key, entry, at, rewrite_id, last_rewrite_id, snapshot)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await self._walks.sessions(user_id, limit, cursor)

    async def delete(self, key: SessionKey) -> bool:
        return await self._deletion.delete_session(key)

    async def delete_user(self, user_id: str) -> int:
        return await self._deletion.delete_user(user_id)

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        return await self._walks.users(limit, cursor)

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await self._walks.tombstones(user_id, limit, cursor)

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        first = check_restore(head, entries, behind)
        self._limits.check_restore(head, entries)
        return await self._writer.restore(head, entries, first, behind)


def _limits(durability: Durability) -> Limits:
    return Limits(
        entry_bytes=64 * 2**20,
        summary_bytes=2**20,
        # The most elements of a list: https://redis.io/docs/latest/develop/data-types/lists/
        entries=2**32 - 1,
        page=PAGE,
        page_bytes=PAGE_BYTES,
        remembered_ids=None,
        durability=durability,
        atomic_head=True,
    )


def _open(options: RedisOptions) -> RedisProvider:
    return RedisProvider(**options.model_dump(exclude_unset=True))


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    for scheme in SCHEMES:
        yield ProviderSpec(scheme, RedisOptions, _open)
