"""Tests that need agentscope-runtime and so agentscope 1.x: ``test_agentscope_runtime.py`` runs them elsewhere."""

from importlib.util import find_spec

if find_spec("agentscope_runtime") is None:
    collect_ignore_glob = ["*"]
