"""Bugs planted into the library, each of which the driver must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from session_history.errors import NotStorable, Unavailable
from session_history.log import session_log
from session_history.log.reader import Reader
from session_history.records import messages, salvage, values
from session_history.records.fitting import fitted
from session_history.records.record import Status
from session_history.turns import draft, lifecycle, stop, turn, writer
from session_history.turns.draft import Draft
from session_history.turns.lifecycle import OpenTurn, OpenTurns
from session_history.turns.recorder import TurnRecorder
from session_history.turns.writer import Writer
from session_history.view.assembly import TurnView
from session_history.view.repair import repaired
from session_history_hooks import SessionKey

Patch = pytest.MonkeyPatch

SALVAGE = vars(salvage)["_Salvage"]

# A side effect is known to the next call


def failed_turns_with_results_are_left_out(patch: Patch) -> None:
    patch.setattr(TurnView, "may_have_effect", property(lambda _: False))


def interrupted_turns_are_not_stored(patch: Patch) -> None:
    real = OpenTurns.end_early

    async def end_early(self: OpenTurns, opened: OpenTurn[Any], status: Status, error: BaseException) -> None:
        if status is not Status.INTERRUPTED or opened.writer.is_exclusive:
            await real(self, opened, status, error)
            return
        opened.draft.close(status)
        self.discard(opened)

    patch.setattr(OpenTurns, "end_early", end_early)


def stream_is_recorded_when_it_has_ended(patch: Patch) -> None:
    """Lose what the consumer had when it left."""
    real = TurnRecorder.add_piece
    held: dict[int, list[object]] = {}

    def add_piece(self: TurnRecorder[Any], item: object) -> None:
        held.setdefault(id(self), []).append(item)
        if len(held[id(self)]) > 1:
            real(self, held[id(self)].pop(0))

    patch.setattr(TurnRecorder, "add_piece", add_piece)


def checkpoint_stores_nothing(patch: Patch) -> None:
    async def checkpoint(self: TurnRecorder[Any], status: Status = Status.OPEN) -> None: ...

    patch.setattr(TurnRecorder, "checkpoint", checkpoint)


def large_turn_loses_its_end(patch: Patch) -> None:
    real = Draft.part

    def part(self: Draft, record: Any, limit: int, lease: float | None) -> Any:
        found = real(self, record, limit, lease)
        if found is not None:
            del self.messages[len(record.messages) + 1 :]
        return found

    patch.setattr(Draft, "part", part)


def stop_forgets_the_open_turns(patch: Patch) -> None:
    async def interrupt(turns: OpenTurns, opened: OpenTurn[Any]) -> None:
        told = "the service was stopped during the turn, which is stored as interrupted"
        opened.draft.stop_error = Unavailable(told)
        opened.draft.close(Status.INTERRUPTED)
        opened.writer.end_lease()
        turns.discard(opened)

    patch.setattr(stop, "_interrupt", interrupt)


# Values


def salvage_drops_the_part(patch: Patch) -> None:
    patch.setattr(SALVAGE, "_converted", lambda *_: None)


def salvage_changes_silently(patch: Patch) -> None:
    patch.setattr(SALVAGE, "_note", lambda *_: None)


def markers_are_not_listed(patch: Patch) -> None:
    patch.setattr(Draft, "note", lambda *_: None)


def marker_lacks_the_value(patch: Patch) -> None:
    patch.setattr(salvage, "_text_of", lambda _: "a date or a number")


def markers_are_not_logged(patch: Patch) -> None:
    patch.setattr(Writer, "_log_markers", lambda _: None)


def log_holds_content(patch: Patch) -> None:
    real = Draft.note

    def note(self: Draft, markers: Any) -> None:
        real(self, markers)
        if self.markers:
            writer.logger.warning("not stored: %s", [message.value for message in self.messages])

    patch.setattr(Draft, "note", note)


def large_part_is_cut_without_a_word(patch: Patch) -> None:
    patch.setattr(draft, "fitted", lambda value, room, path: (fitted(value, room, path)[0], []))


# Before the model


def error_lacks_its_path(patch: Patch) -> None:
    def check(value: object, path: str) -> None:
        flaw = values.flaw_of(value)
        if flaw is not None:
            raise NotStorable(path, flaw[1])

    patch.setattr(messages, "check", check)


def error_holds_content(patch: Patch) -> None:
    patch.setattr(NotStorable, "__str__", lambda self: f"{self.path} {self.reason} («u0.s1.1.1»)")


def large_input_is_refused_too_late(patch: Patch) -> None:
    patch.setattr(lifecycle, "check_fits", lambda *_: None)


# The view


def nothing_is_repaired(patch: Patch) -> None:
    patch.setattr(turn, "repaired", lambda messages, **_: (messages, []))


def neighbours_are_not_merged(patch: Patch) -> None:
    patch.setattr(turn, "repaired", lambda messages, **_: repaired(messages))


def window_lacks_a_turn(patch: Patch) -> None:
    real = Reader.for_turn

    async def for_turn(self: Reader, key: SessionKey, size: Any, *arguments: Any, **keywords: Any) -> Any:
        size = size - 1 if type(size) is int and size > 1 else size
        return await real(self, key, size, *arguments, **keywords)

    patch.setattr(Reader, "for_turn", for_turn)


# One session and another


def session_is_found_without_its_user(patch: Patch) -> None:
    real = Reader.for_turn

    async def for_turn(self: Reader, key: SessionKey, *arguments: Any, **keywords: Any) -> Any:
        return await real(self, SessionKey("u0", key.session_id), *arguments, **keywords)

    patch.setattr(Reader, "for_turn", for_turn)


def state_of_another_session_is_shown(patch: Patch) -> None:
    seen: list[Any] = []

    def value(self: turn.SlotState) -> Any:
        if self._value is not None:
            seen.append(self._value)
        return seen[0] if seen else None

    patch.setattr(turn.SlotState, "value", property(value))


# Waiting and repeats


def own_turn_is_waited_for(patch: Patch) -> None:
    patch.setattr(session_log, "RETRY_TIMEOUT", 0.3)
    patch.setattr(lifecycle, "own_writer", lambda *_: None)


def answered_turn_runs_again(patch: Patch) -> None:
    patch.setattr(Reader, "_recorded", _nothing)


async def _nothing(*_: Any) -> None: ...


def repeat_is_not_compared(patch: Patch) -> None:
    patch.setattr(Writer, "require_same_input", lambda *_, **__: None)


NARROW = {large_turn_loses_its_end, large_part_is_cut_without_a_word, large_input_is_refused_too_late}
"""Bugs that only a store with small entries shows."""

BUGS: dict[str, tuple[Callable[[Patch], None], bool]] = {
    plant.__name__: (plant, plant in NARROW)
    for plant in (
        failed_turns_with_results_are_left_out, interrupted_turns_are_not_stored, stream_is_recorded_when_it_has_ended,
        checkpoint_stores_nothing, large_turn_loses_its_end, stop_forgets_the_open_turns, salvage_drops_the_part,
        salvage_changes_silently, markers_are_not_listed, marker_lacks_the_value, markers_are_not_logged,
        log_holds_content, large_part_is_cut_without_a_word, error_lacks_its_path, error_holds_content,
        large_input_is_refused_too_late, nothing_is_repaired, neighbours_are_not_merged, window_lacks_a_turn,
        session_is_found_without_its_user,
        state_of_another_session_is_shown, own_turn_is_waited_for, answered_turn_runs_again, repeat_is_not_compared,
    )
}  # fmt: skip
"""The bugs by name, each with whether it takes small entries."""
