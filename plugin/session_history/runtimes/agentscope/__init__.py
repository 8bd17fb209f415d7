"""AgentScope 2: agents with a memory.

.. code-block:: python

    agent = Agent(
        ...,
        state=AgentState(session_id="first-steps"),
        middlewares=[SessionHistoryMiddleware(service, user_id="ada")],
    )

In AgentScope's own service app: ``create_app(..., extra_agent_middlewares=app_middlewares())``.
"""

from session_history.errors import MissingDriver

try:
    import agentscope.state  # noqa: F401 - AgentScope 1 has no such module
except ImportError:
    raise MissingDriver("AgentScope 2 is not installed: pip install 'session-history[agentscope]'") from None

from session_history.runtimes.agentscope.messages import FORMAT
from session_history.runtimes.agentscope.middleware import SessionHistoryMiddleware, app_middlewares

__all__ = ["FORMAT", "SessionHistoryMiddleware", "app_middlewares"]
