"""A history in which a backup was restored while clients went on is two: what was before, and what is now."""

from __future__ import annotations

from dataclasses import replace

from histories.history import FOREVER, Attempt, Dump, EntryFacts, History, Operation, StoredLog


def split(history: History, began: int, ended: int, backup: Dump) -> tuple[History, History]:
    """Return the histories before and after a restore.

    What was under way meanwhile may have reached either store, or both: its outcome is unknown in both.

    :param began: when the store was still the old one.
    :param ended: when it was the new one.
    :param backup: what the backup held, and when it was made.
    """
    before = History(base=history.base, backups=[backup])
    after = History(base=Dump(0, 0, _named(backup, history)), final=history.final)
    for name, operation in history.operations.items():
        if operation.returned <= began:
            before.operations[name] = operation
        elif operation.invoked >= ended:
            after.operations[name] = operation
        else:
            before.operations[name] = _begun(operation, began)
            after.operations[name] = _ended(operation, began, ended)
    return before, after


def _named(backup: Dump, history: History) -> dict[str, StoredLog]:
    """Return the logs of a backup, each entry with the call that wrote it."""
    ops = {each.entry.origin: each.entry for call in history.operations.values() for each in call.attempts}

    def named(entry: EntryFacts) -> EntryFacts:
        return replace(entry, op=ops[entry.origin].op) if entry.origin in ops else entry

    return {name: replace(log, entries=tuple(map(named, log.entries))) for name, log in backup.logs.items()}


def _begun(operation: Operation, began: int) -> Operation:
    """Return what is known of a call that never returned from the old store."""
    attempts = [
        each if each.returned <= began else replace(each, returned=FOREVER, outcome="unknown")
        for each in operation.attempts
        if each.invoked < began
    ]
    return _under_way(operation, attempts)


def _ended(operation: Operation, began: int, ended: int) -> Operation:
    """Return what is known of a call that was made before the store became another one."""
    attempts = [
        each
        if each.invoked >= ended or each.outcome == "conflict"
        else replace(each, returned=FOREVER, outcome="unknown")
        for each in operation.attempts
        if each.returned > began
    ]
    known = _under_way(operation, attempts)
    is_certain = attempts and all(each.invoked >= ended for each in attempts)
    if operation.do in {"turn", "append"} and operation.outcome == "ok" and is_certain and not operation.recorded:
        known.outcome, known.returned = "ok", operation.returned
    return known


def _under_way(operation: Operation, attempts: list[Attempt]) -> Operation:
    do = operation.do if operation.do in {"create", "delete"} else "turn"
    may_begin = operation.facts.get("durable") or operation.facts.get("checkpoint")
    facts = {"texts": operation.facts.get("texts", []), "durable": may_begin}
    return Operation(operation.name, do, operation.session, operation.invoked, facts=facts, attempts=attempts)
