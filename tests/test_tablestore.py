import pytest

from session_history_hooks.testing import ProviderContract
from tablestore_providers import connect_to
from tablestore_server import TablestoreServer


class TestTablestore(ProviderContract):
    @pytest.fixture
    def connect(self):
        with TablestoreServer() as server:
            yield connect_to(server)
