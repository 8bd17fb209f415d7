"""The provider keeps the contract."""

import functools
import tempfile
from pathlib import Path

import pytest

from session_history_files import FilesProvider
from session_history_hooks.testing import Connect, ProviderContract, provider_machine


class TestFiles(ProviderContract):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return functools.partial(FilesProvider, tmp_path / "store")


def new_store() -> Connect:
    return functools.partial(FilesProvider, tempfile.mkdtemp())


TestFilesAtRandom = provider_machine(new_store).TestCase
