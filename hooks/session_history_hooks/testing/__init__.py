"""The contract as tests, for authors of providers. Needs ``pip install 'session-history[testing]'``.

Subclass :class:`ProviderContract` in a test module, with a fixture that connects to the store::

    class TestMyProvider(ProviderContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return functools.partial(MyProvider, tmp_path / "store")

Then compare random histories with a model, which is a dict::

    TestMyProviderAtRandom = provider_machine(new_store).TestCase
"""

try:
    import hypothesis  # noqa: F401 - drives the state machine
    import pytest
    import pytest_asyncio  # noqa: F401 - the tests are coroutines
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "session_history_hooks.testing needs hypothesis, pytest and pytest-asyncio: "
        "pip install 'session-history[testing]'",
        name=_missing.name,
    ) from None

for _part in (
    "activity", "appending", "claims", "claims_table", "concurrency", "deleting", "entry_keys", "identity", "lifecycle",
    "listing", "machine", "model", "origins", "paging", "processes", "reading", "refusing", "restorable_logs",
    "restoring", "restoring_refusals", "retrying", "rewriting", "searching", "subject", "users",
):  # fmt: skip
    pytest.register_assert_rewrite(f"{__name__}.{_part}")

from session_history_hooks.testing.contract import ProviderContract  # noqa: E402 - after the rewrite
from session_history_hooks.testing.machine import ProviderMachine, provider_machine  # noqa: E402 - as above
from session_history_hooks.testing.subject import Connect  # noqa: E402 - as above

__all__ = ["Connect", "ProviderContract", "ProviderMachine", "provider_machine"]
