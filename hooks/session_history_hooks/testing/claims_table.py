"""A Markdown table of the limits that a provider claims, and of the time that a turn took in this run."""

from __future__ import annotations

import statistics
import time
from dataclasses import fields

from session_history_hooks import Durability, Limits, Position, SessionHistoryProvider, WaitingOrder
from session_history_hooks.testing.subject import KEY, Subject, append, covering, fill

SURVIVES = {
    Durability.PROCESS: "nothing: it is lost when the process that holds it ends",
    Durability.HOST: "the end of the process that holds it",
    Durability.DISK: "a power cut",
}

TURNS = 30
WINDOW = 20


def claim_rows(limits: Limits) -> dict[str, str]:
    """Return a row of the table for each field of the limits."""
    waiting = "the order of their arrival" if limits.waiting is WaitingOrder.ARRIVAL else "any order"
    together = "together" if limits.atomic_head else "perhaps apart, for a moment"
    remembered = limits.remembered_ids
    return {
        "durability": f"an acknowledged append survives | {SURVIVES[limits.durability]}",
        "atomic_head": f"entry and head are seen | {together}",
        "entry_bytes": f"an entry holds | {limits.entry_bytes:,} bytes",
        "summary_bytes": f"a summary holds | {limits.summary_bytes:,} bytes",
        "entries": f"a session holds | {limits.entries:,} entries",
        "waiting": f"turns that wait for an exclusive one begin in | {waiting}",
        "page": f"a page holds | {limits.page:,} entries, or heads of a listing",
        "page_bytes": f"a page holds | {limits.page_bytes:,} bytes of payload, or one larger entry",
        "remembered_ids": f"ids are remembered | {'all' if remembered is None else f'the newest {remembered:,}'}",
    }


def claims_table(name: str, limits: Limits, turn: str) -> str:
    """Return the Markdown table of a provider.

    :param name: the name of the provider's class.
    :param turn: the time that a turn took in this run.
    """
    rows = [*claim_rows(limits).values(), f"a turn in this run | {turn}"]
    return "\n".join([f"| `{name}` | |", "|---|---|", *(f"| {row} |" for row in rows)])


class ClaimsTableContract(Subject):
    """Prints the claims table: ``pytest -rP -k claims_table``."""

    async def test_claims_table_has_a_row_for_each_limit(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, WINDOW)
        loads, appends = [], []
        for number in range(WINDOW + 1, WINDOW + TURNS + 1):
            began = time.perf_counter()
            log = await provider.read(KEY, last=WINDOW)
            loaded = time.perf_counter()
            await append(provider, number, covering(number))
            loads.append(loaded - began)
            appends.append(time.perf_counter() - loaded)
            assert log is not None
            assert log.head.tail == Position(0, number - 1)
        load, store = (f"{1000 * statistics.median(times):.2f} ms" for times in (loads, appends))
        turn = f"load of {WINDOW} entries {load}, append {store}"
        print(claims_table(type(provider).__name__, provider.limits, turn))  # noqa: T201
        assert set(claim_rows(provider.limits)) == {field.name for field in fields(Limits)}
