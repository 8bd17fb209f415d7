"""The public API: one service for all providers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypedDict, TypeVar, overload
from uuid import uuid4

from typing_extensions import Unpack

from session_history.config import chain, registry, settings
from session_history.errors import (
    ConfigurationError,
    Conflict,
    NotStorable,
    SessionDeleted,
    SessionExists,
    SessionNotFound,
    Unavailable,
    Unsupported,
)
from session_history.log.reader import Reader, TurnWindow
from session_history.log.session_log import Placed, SessionLog
from session_history.records.messages import MessageInput, freeze, thaw
from session_history.records.record import Author, MessageRef, Record, new_id
from session_history.records.summary import SessionSummary
from session_history.records.values import check, check_count, copied
from session_history.session import AnySession, Session, SessionList, SessionSource, time_of
from session_history.turns.lifecycle import OpenTurns, TurnContext, own_writer, run_to_completion
from session_history.turns.options import TurnOptions
from session_history.turns.recorder import TurnRecorder
from session_history.turns.stop import interrupt_all
from session_history.turns.turn import Turn, TurnRequest
from session_history.view.assembly import messages_of
from session_history_hooks import Backup, Entry, Head, SessionHistoryProvider, SessionKey, ability, check_key
from session_history_hooks.provider import missing_members

logger: logging.Logger = logging.getLogger("session_history")


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET

JsonObject = dict[str, Any]

_POLL_INTERVAL = 0.005
"""Seconds between two looks at a store that is being closed, perhaps by another event loop."""

_SHOWN_IDS = 5
"""The most ids of unreadable sessions that a line of the log names."""

T = TypeVar("T")


class WindowOptions(TypedDict, total=False):
    """Options of a read, see :meth:`SessionHistoryService.get_session`."""

    last_turns: int | None
    before: str | None


class CreateOptions(TypedDict, total=False):
    """Options of a new session, see :meth:`SessionHistoryService.create_session`."""

    title: str | None
    metadata: Mapping[str, Any] | None


class SessionHistoryService:
    """Keeps conversations in the store of a provider.

    It starts by itself on first use. :meth:`start` makes errors show up early. ``async with service`` starts
    and stops it. Every method may raise :class:`~session_history.errors.Unavailable` or
    :class:`~session_history.errors.Corrupt`. User and session ids that cannot be keys raise
    :class:`~session_history.errors.InvalidKey` before the store is touched.

    :param provider: where to keep them; the service starts and stops it.
    """

    def __init__(self, provider: SessionHistoryProvider) -> None:
        _check_provider(provider)
        self._provider = provider
        self._log = SessionLog(provider)
        self._reader = Reader(self._log)
        self._turns = OpenTurns(self._ready)
        self._opened = False
        self._stopped = False
        self._closing = 0  # how many calls of stop are closing the store

    @staticmethod
    def from_url(url: str, **options: Any) -> SessionHistoryService:
        """Return a service by URL, e.g. ``"sqlite:///history.db"``. Only the plugin for this scheme is imported.

        :param options: options of the provider, like those in the query of the URL.
        :raises ConfigurationError: the provider does not accept the URL or an option.
        :raises UnknownScheme: no installed plugin provides the scheme.
        :raises MissingDriver: the plugin needs a package that is not installed.
        :raises PluginError: the plugin is broken.
        """
        return SessionHistoryService(registry.open_provider(url, options))

    @staticmethod
    def from_config(path: str | os.PathLike[str] | None = None) -> SessionHistoryService:
        """Return the service that the environment or the configuration file names.

        :param path: a TOML file, instead of the one that ``SESSION_HISTORY_CONFIG`` names.
        :raises ConfigurationError: nothing is configured, or a setting is wrong. See also :meth:`from_url`.
        :raises UnknownWrapper: no installed plugin provides a wrapper that the configuration names.
        """
        return SessionHistoryService(chain.open_chain(settings.load(path)))

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "started" if self._opened else "new"
        return f"{type(self).__name__}({self._provider!r}, {state})"

    @property
    def provider(self) -> SessionHistoryProvider:
        """The provider that keeps the sessions. What is written there past the service is not checked by it."""
        return self._provider

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the store. A second call opens nothing; after :meth:`stop` it opens the store again.

        :raises StoreReadOnly: the store cannot be written.
        :raises IncompatibleStore: the store is another application's, or a newer version's.
        """
        self._stopped = False
        await self._open_store()

    async def stop(self) -> None:
        """Store the open turns as interrupted, and close the store. A second call does nothing.

        A later call raises :class:`~session_history.errors.Unavailable`; so does the end of a turn that was open.
        """
        self._stopped = True
        self._opened = False
        self._closing += 1
        try:
            await run_to_completion(self._close)
        finally:
            self._closing -= 1

    async def health(self) -> bool:
        """Tell whether the store can be used now. If it is another one than before, drop what is known of it.

        Never raises.
        """
        try:
            await self._ready()
            await self._log.identify_store()
            return await self._provider.health()
        except Exception:
            return False

    async def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of the whole store to a file, as it is at one moment, while turns go on. For SQLite only.

        The file appears when it is whole and on the disk. A call that fails or is cancelled leaves no file.

        :param path: the file, in a folder that exists.
        :param overwrite: replace a file that exists.
        :raises BackupExists: the file exists.
        :raises ConfigurationError: there cannot be a file at the path, or it is the store's own.
        :raises StoreFull: the disk is full.
        :raises StoreReadOnly: this process may not write there.
        :raises Unsupported: the store is of another kind, which has a tool of its own for backups.
        """
        await self._ready()
        copies = ability(self._provider, Backup)
        if copies is None:
            raise Unsupported(
                f"{type(self._provider).__name__} writes no backup to a file; "
                "the page 'Backup and restore' has a way for each store"
            )
        await copies.backup(os.fspath(path), overwrite=overwrite)

    @overload
    async def create_session(
        self,
        user_id: str,
        session_id: str | None = None,
        *,
        native: Literal[False] = False,
        **options: Unpack[CreateOptions],
    ) -> Session: ...
    @overload
    async def create_session(
        self,
        user_id: str,
        session_id: str | None = None,
        *,
        native: Literal[True],
        **options: Unpack[CreateOptions],
    ) -> Session[JsonObject]: ...
    @overload
    async def create_session(
        self, user_id: str, session_id: str | None = None, *, native: bool, **options: Unpack[CreateOptions]
    ) -> Session[Any]: ...
    async def create_session(
        self,
        user_id: str,
        session_id: str | None = None,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        native: bool = False,
    ) -> Session[Any]:
        """Create a session, or re-create one that was deleted.

        :param session_id: if missing or blank, a new id is made.
        :param native: appends to the returned session take any JSON object instead of
            :class:`~session_history.Message`.
        :raises SessionExists: there is one with this id; it is not touched.
        :raises NotStorable: the title or the metadata cannot be stored exactly.
        """
        named = not isinstance(session_id, str) or session_id.strip()
        key = SessionKey(user_id, session_id if session_id is not None and named else uuid4().hex)
        record = Record(Author.SESSION, base=0, changes=_changes(title, metadata))
        await self._ready()
        entry = record.entry(new_id())
        head = await run_to_completion(lambda: self._begin(key, record, entry))
        return self._session(key, TurnWindow(head, await self._log.summary(key, head)), native=native)

    @overload
    async def get_session(
        self, user_id: str, session_id: str, *, native: Literal[False] = False, **options: Unpack[WindowOptions]
    ) -> Session | None: ...
    @overload
    async def get_session(
        self, user_id: str, session_id: str, *, native: Literal[True], **options: Unpack[WindowOptions]
    ) -> Session[JsonObject] | None: ...
    @overload
    async def get_session(
        self, user_id: str, session_id: str, *, native: bool, **options: Unpack[WindowOptions]
    ) -> Session[Any] | None: ...
    async def get_session(
        self,
        user_id: str,
        session_id: str,
        *,
        last_turns: int | None = None,
        before: str | None = None,
        native: bool = False,
    ) -> Session[Any] | None:
        """Read a session with all that was recorded, failed turns included. Never writes.

        A session never seen is empty; its first append creates it. A session of another user looks the same.

        :param last_turns: only the newest so many turns.
        :param before: :attr:`~session_history.Session.earlier` of a session: read the turns before its messages.
        :param native: return the stored values as they are, instead of :class:`~session_history.Message`.
        :returns: ``None`` for a deleted session.
        :raises InvalidCursor: ``before`` is not such a cursor, or one of an earlier generation of the session.
        """
        key = SessionKey(user_id, session_id)
        count = check_count("last_turns", last_turns)
        await self._ready()
        try:
            window = await (
                self._reader.newest(key, count) if before is None else self._reader.before(key, before, count)
            )
        except SessionDeleted:  # while it was being read
            return None
        if window.head is not None and window.head.deleted:
            return None
        return self._session(key, window, native=native)

    async def update_session(
        self,
        user_id: str,
        session_id: str,
        *,
        title: str | _Unset | None = UNSET,
        metadata: Mapping[str, Any] | _Unset | None = UNSET,
    ) -> Session:
        """Replace the title or the metadata of a session; ``None`` removes them.

        :returns: the session without its messages.
        :raises SessionNotFound: it was never seen.
        :raises SessionDeleted: it was deleted.
        :raises NotStorable: the title or the metadata cannot be stored exactly.
        """
        key = SessionKey(user_id, session_id)
        changes = _changes(title, metadata)
        await self._ready()
        head = await self._living_head(key)
        if head is None:
            raise SessionNotFound(key)
        if changes:
            record = Record(Author.SESSION, base=head.tail.seq, changes=changes)
            placed = await run_to_completion(partial(self._append_record, key, record, head, new_id()))
            # Without a head, the append was found in the log after its acknowledgement was lost.
            head = placed.head or await self._living_head(key) or head
        return self._session(key, TurnWindow(head, await self._log.summary(key, head)), native=False)

    async def list_sessions(self, user_id: str, *, limit: int | None = None, cursor: str | None = None) -> SessionList:
        """List the sessions of a user without their messages, newest activity first.

        A damaged session takes no other away from the list: ``unreadable`` names it.

        :param limit: the most sessions to return; without it, all.
        :param cursor: the ``next_cursor`` of the list before.
        :raises InvalidCursor: not a cursor of a list.
        """
        user = check_key("user_id", user_id)
        count = check_count("limit", limit, least=1)
        await self._ready()
        sessions = SessionList()
        while True:
            wanted = self._provider.limits.page if count is None else count - len(sessions)
            page = await self._provider.list(user, limit=wanted, cursor=cursor)
            unreadable = [*sessions.unreadable, *(key.session_id for key in page.unreadable)]
            for head in page.heads:
                summary = await self._log.listed_summary(head)
                if summary is None:
                    unreadable.append(head.key.session_id)
                window = TurnWindow(head, summary or SessionSummary())
                sessions.append(self._session(head.key, window, native=False))
            sessions.unreadable = tuple(dict.fromkeys(unreadable))
            sessions.unnamed += page.unnamed
            cursor = page.cursor
            if cursor is None or len(sessions) == count:
                sessions.next_cursor = cursor
                _log_unreadable(user, sessions)
                return sessions

    async def append_message(self, session: Session[Any], message: MessageInput) -> None:
        """Append messages to a session, all or none, behind all that others appended meanwhile.

        Once the store has confirmed, ``session.messages`` is extended too.

        If the store lost what the session holds, the session then holds only what was appended now, and
        :attr:`~session_history.Session.earlier` leads to what the store has.

        :param message: a :class:`~session_history.Message`, a dict, or a list of both. A session read or created
            with ``native=True`` takes any dict.
        :raises InvalidMessage: something is not a message.
        :raises NotStorable: something would not come back equal.
        :raises SessionDeleted: the session was deleted since it was read.
        """
        if not isinstance(session, Session):
            raise TypeError(f"session must be a Session, not {type(session).__name__}")
        key = SessionKey(session.user_id, session.id)
        source = session.source
        messages = freeze(message, native=source is not None and source.native)
        if not messages:
            return
        await self._ready()
        is_known = source is not None and (source.log, source.key) == (self._log.name, key)
        known = source.head if source and is_known else await self._living_head(key)
        record = Record(Author.APPEND, base=known.tail.seq if known else 0, messages=tuple(messages))
        entry_id = new_id()
        await run_to_completion(lambda: self._append(session, key, record, known, entry_id))

    async def delete_session(self, user_id: str, session_id: str) -> None:
        """Delete a session with all that was said in it. A session that does not exist is not an error."""
        key = SessionKey(user_id, session_id)
        await self._ready()
        await run_to_completion(lambda: self._provider.delete(key))
        self._log.cache.drop(key)

    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions of a user; return how many there were."""
        user = check_key("user_id", user_id)
        await self._ready()
        deleted = await run_to_completion(lambda: self._provider.delete_user(user))
        self._log.cache.drop_user(user)
        return deleted

    @overload
    def turn(
        self, user_id: str, session_id: str, *, native: Literal[False] = False, **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[Turn]: ...
    @overload
    def turn(
        self, user_id: str, session_id: str, *, native: Literal[True], **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[Turn[JsonObject]]: ...
    @overload
    def turn(
        self, user_id: str, session_id: str, *, native: bool, **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[Turn[Any]]: ...
    def turn(
        self, user_id: str, session_id: str, *, native: bool = False, **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[Turn[Any]]:
        """Open one turn: load the session, let the body add what is said, store it as one entry.

        When the body ends, the turn is stored as completed. When it raises, as failed: kept, and not shown to the
        model, unless a tool may have had an effect. When it is cancelled or left early, as interrupted, with what was
        said so far. A turn that is larger than an entry becomes several; only the last says that the turn ended.

        :param input: what the turn answers, added to the turn. It is checked before anything else. A repeat of the turn
            must bring the same one. What a client sent again, by the ids of its messages, is not stored twice.
        :param turn_id: makes the turn safe to repeat: :attr:`~session_history.Turn.recorded` holds what it recorded
            the first time, and nothing is stored twice.
        :param last_turns: how many turns of history the model sees: as many, or up to half as many more, so that the
            start of the history seldom moves.
        :param token_budget: instead, as many of the newest turns as fit into a number of tokens, with the input.
        :param native: history and messages are any JSON objects instead of :class:`~session_history.Message`.
        :param slot: the name of an agent, whose :attr:`~session_history.Turn.state` is read and stored with the turn.
        :param concurrent: the policy while another turn of the session goes on. ``"keep"``: store both, in the order
            in which they end. ``"reject"``: refuse this one. ``"queue"``: let this one wait. With the last two, the
            turn is exclusive: it holds the session's lease, and nobody else appends before it ends or counts as dead,
            30 s after its last heartbeat. Turns with ``"keep"`` do not announce themselves.
        :param patience: the seconds that ``"queue"`` waits at most; 300 by default.
        :param durable: store the input before the body runs. After the death of the process the next turn shows it.
        :param on_repeat: the policy for the id of a turn that was interrupted. ``"replay"``: its partial answer is
            recorded. ``"rerun"``: it runs again, and its answer counts from then on.
        :param alternate: merge neighbouring messages of one role, for models that insist on alternation.
        :raises SessionBusy: with ``"reject"``, if another turn holds the session's lease; with ``"queue"``, if it holds
            it for longer than ``patience``; always if the running task is in an exclusive turn of this session.
        :raises TurnOvertaken: this turn counted as dead; what it said was not stored.
        :raises TurnIdReused: the turn was recorded with another input.
        :raises TranscriptEdited: the input repeats messages of the session, but not as they are.
        :raises LimitExceeded: the input is larger than an entry.
        :raises SessionDeleted: the session was deleted, before the turn or during it.
        :raises ValueError: an option has a wrong value; or a count of tokens is not a number.
        """
        request = TurnRequest(SessionKey(user_id, session_id), native, **options)
        return TurnContext(self._log, self._reader, self._turns, request, lambda opened: opened.turn)

    @overload
    def record_turn(
        self, user_id: str, session_id: str, *, native: Literal[True] = True, **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[TurnRecorder[JsonObject]]: ...
    @overload
    def record_turn(
        self, user_id: str, session_id: str, *, native: Literal[False], **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[TurnRecorder]: ...
    @overload
    def record_turn(
        self, user_id: str, session_id: str, *, native: bool, **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[TurnRecorder[Any]]: ...
    def record_turn(
        self, user_id: str, session_id: str, *, native: bool = True, **options: Unpack[TurnOptions]
    ) -> AbstractAsyncContextManager[TurnRecorder[Any]]:
        """Open one turn for a driver, such as the adapter of a runtime. Parameters and errors: see :meth:`turn`.

        Unlike :meth:`turn` it is native by default: a runtime has messages of its own. The input may be a list of
        :class:`~session_history.StoredMessage`.
        """
        request = TurnRequest(SessionKey(user_id, session_id), native, **options)
        return TurnContext(self._log, self._reader, self._turns, request, partial(TurnRecorder, turns=self._turns))

    async def _ready(self) -> None:
        if self._stopped:
            raise Unavailable("the service is stopped; start it again to use it")
        if not self._opened:
            await self._open_store()

    async def _open_store(self) -> None:
        while self._closing:  # noqa: ASYNC110 - an Event belongs to one loop
            await asyncio.sleep(_POLL_INTERVAL)
        await self._provider.start()
        if self._stopped:  # meanwhile
            await self._provider.stop()
            raise Unavailable("the service was stopped while it started")
        self._log.forget()
        try:
            await self._log.identify_store()
        except ConfigurationError:
            await self._provider.stop()
            raise
        self._opened = True

    async def _close(self) -> None:
        await interrupt_all(self._turns)
        await self._provider.stop()

    async def _begin(self, key: SessionKey, record: Record, entry: Entry) -> Head:
        head: Head | None = None
        while True:
            try:
                begun = await self._log.append_at(key, entry, record, head) or await self._log.head(key)
            except Conflict as conflict:
                head = conflict.head
                if head is not None and not head.deleted:
                    raise SessionExists(key) from None
            else:
                assert begun is not None
                return begun

    async def _append(
        self, session: Session[Any], key: SessionKey, record: Record, known: Head | None, entry_id: str
    ) -> None:
        ask = bool(session.messages or session.earlier)
        source = session.source
        # What was read by another service, or from another store, may be lost, too.
        end = source.head if source and source.key == key and source.log != self._log.name else None
        is_lost = end is not None and not await self._log.goes_on(known, end)
        placed = await self._append_record(key, record, known, entry_id, ask=ask)
        head = placed.head
        native = source is not None and source.native
        new = thaw(record.messages, native=native)
        if (placed.lost_past or is_lost) and head is not None:
            logger.warning("%s: a session object drops the messages that the store lost", key)
            await self._show_only(session, head, new)
        else:
            session.messages.extend(new)
        # Without a head the next append asks the store for it.
        session.bind(SessionSource(self._log.name if head else "", key, head, native))

    async def _show_only(self, session: Session[Any], head: Head, messages: list[Any]) -> None:
        """Make a session the window of what was appended last: the rest of what it holds is lost."""
        start = MessageRef(head.tail.seq, 0)
        window = TurnWindow(head, await self._log.summary(head.key, head), start=start if head.tail.seq > 1 else None)
        now = self._session(head.key, window, native=False)
        session.messages[:] = messages
        for name in Session.model_fields.keys() - {"id", "user_id", "messages"}:
            setattr(session, name, getattr(now, name))

    async def _append_record(
        self, key: SessionKey, record: Record, known: Head | None, entry_id: str, *, ask: bool = False
    ) -> Placed:
        """Append a record of its own. In an exclusive turn of the running task it belongs to that turn's lease."""
        own = own_writer(self._log, key)
        if own is not None:
            return Placed(await own.append_within(record, entry_id), known)
        return await self._log.append(key, record.entry(entry_id), record, known=known, ask=ask)

    async def _living_head(self, key: SessionKey) -> Head | None:
        head = await self._log.head(key)
        if head is not None and head.deleted:
            raise SessionDeleted(key)
        return head

    def _session(self, key: SessionKey, window: TurnWindow, *, native: bool) -> Session[Any]:
        head, summary = window.head, window.summary
        session = AnySession(
            id=key.session_id,
            user_id=key.user_id,
            messages=thaw(messages_of(window.turns), native=native),
            title=summary.title,
            metadata=copied(summary.metadata),
            turns=summary.turns,
            created_at=time_of(summary.created_us),
            updated_at=time_of((head.changed_us if head else None) or summary.created_us),
            earlier=window.earlier,
        )
        session.bind(SessionSource(self._log.name, key, head, native))
        return session


def _log_unreadable(user_id: str, sessions: SessionList) -> None:
    if sessions.unreadable or sessions.unnamed:
        logger.error(
            "%d sessions of user %r cannot be read; the first ones are %s",
            len(sessions.unreadable) + sessions.unnamed,
            user_id,
            list(sessions.unreadable[:_SHOWN_IDS]),
        )


def check_service(service: object) -> None:
    """Check a parameter ``service``. :raises TypeError: neither a service nor ``None``, the configured one."""
    if service is not None and not isinstance(service, SessionHistoryService):
        raise TypeError(
            f"service must be a SessionHistoryService, not {_kind(service)}; SessionHistoryService.from_url makes one"
        )


def _check_provider(provider: object) -> None:
    if missing := missing_members(provider):
        raise TypeError(
            f"provider must be a SessionHistoryProvider, not {_kind(provider)}, which lacks {', '.join(missing)}; "
            "from_url and from_config make one"
        )


def _changes(title: str | _Unset | None, metadata: Mapping[str, Any] | _Unset | None) -> JsonObject:
    changes: JsonObject = {}
    if not isinstance(title, _Unset):
        if title is not None and not isinstance(title, str):
            raise NotStorable("title", f"must be a str, not {type(title).__name__}")
        check(title, "title")
        changes["title"] = title
    if not isinstance(metadata, _Unset):
        if metadata is not None and not isinstance(metadata, Mapping):
            raise NotStorable("metadata", f"must be a dict, not {type(metadata).__name__}")
        values = dict(metadata or {})
        check(values, "metadata")
        changes["metadata"] = copied(values)
    return changes


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
