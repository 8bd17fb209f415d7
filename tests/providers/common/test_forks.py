"""Guards against the use of what a forked process inherits."""

from __future__ import annotations

import gc
import weakref

import pytest

from providers.common.forking import holds_in_child
from session_history.providers.common.forks import ForkGuard, keep_after_fork
from session_history_hooks import Unavailable


class Resource:
    """Something that can be referenced weakly."""


def refuses(guard: ForkGuard) -> bool:
    with pytest.raises(Unavailable, match=r"^the store was open when this process was forked"):
        guard.require_own_process()
    return guard.inherited


def test_guard_in_its_own_process_raises_nothing() -> None:
    guard = ForkGuard("the store")
    guard.require_own_process()
    assert not guard.inherited


def test_guard_in_forked_process_raises_unavailable() -> None:
    guard = ForkGuard("the store")
    assert holds_in_child(lambda: refuses(guard))
    guard.require_own_process()


def test_guard_in_fork_of_fork_raises_unavailable() -> None:
    guard = ForkGuard("the store")
    assert holds_in_child(lambda: holds_in_child(lambda: refuses(guard)))


def test_guard_made_in_forked_process_raises_nothing_there() -> None:
    def check() -> bool:
        guard = ForkGuard("the store")
        guard.require_own_process()
        return holds_in_child(lambda: refuses(guard))

    assert holds_in_child(check)


def test_kept_resource_without_references_lives_in_the_child_only() -> None:
    resources = [Resource()]
    keep_after_fork(resources[0])
    reference = weakref.ref(resources[0])

    def lives() -> bool:
        resources.clear()
        gc.collect()
        return reference() is not None

    assert holds_in_child(lives)
    assert not lives()
