"""The contract as tests, for authors of providers. Needs ``pip install 'session-history[testing]'``.

Subclass :class:`ProviderContract` in a test module and say how to connect::

    class TestMyProvider(ProviderContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyProvider(tmp_path / "store")
"""

try:
    import pytest
    import pytest_asyncio  # noqa: F401 - the tests are coroutines
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "session_history_hooks.testing needs pytest and pytest-asyncio: pip install 'session-history[testing]'",
        name=error.name,
    ) from None

pytest.register_assert_rewrite("session_history_hooks.testing.contract")

from session_history_hooks.testing.contract import Connect, ProviderContract  # noqa: E402 - after the rewrite

__all__ = ["Connect", "ProviderContract"]
