"""The shipped contract suite, run on the provider that the environment variable ``MUTANT`` names."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from mutants.runs import PROVIDERS
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import Restorable, Users
from session_history_hooks.testing import Connect, ProviderContract, provider_machine

provider_class = PROVIDERS[os.environ["MUTANT"]]


def connect_in(folder: Path) -> Connect:
    if issubclass(provider_class, SqliteProvider):
        return partial(provider_class, folder / "history.db")
    store = provider_class()
    return lambda: store


def new_store() -> Connect:
    folder = tempfile.mkdtemp()
    connect = connect_in(Path(folder))
    weakref.finalize(connect, shutil.rmtree, folder, ignore_errors=True)  # a forked child may have been first
    return connect


class TestContract(ProviderContract):
    abilities = (Users, Restorable)

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return connect_in(tmp_path)


TestAtRandom = provider_machine(new_store).TestCase
TestAtRandom.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # A failing history need not be shrunk.
)
