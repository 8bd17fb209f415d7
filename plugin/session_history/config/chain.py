"""The chain that the configuration names: wrappers around a provider."""

from __future__ import annotations

import logging
from functools import partial

from session_history.config import registry
from session_history.config.settings import TABLE, Settings
from session_history.errors import ConfigurationError
from session_history_hooks import SessionHistoryProvider

logger: logging.Logger = logging.getLogger("session_history")


def open_chain(settings: Settings) -> SessionHistoryProvider:
    """Make the outermost wrapper, or the provider if the settings name no wrapper. No I/O.

    :raises ConfigurationError: a wrapper or a provider does not accept its options. See also
        :func:`~session_history.config.registry.open_provider` and
        :func:`~session_history.config.registry.open_wrapper`.
    """
    used: set[str] = set()
    provider = _open(settings, 0, used)
    if settings.url is not None and settings.url not in used:
        logger.warning("[%s]: no wrapper uses url, since %s name their own", TABLE, ", ".join(settings.wrappers))
    return provider


def _open(settings: Settings, depth: int, used: set[str], url: str | None = None) -> SessionHistoryProvider:
    """Open the wrappers from ``depth`` inwards, and the provider.

    :param used: collects the URLs that are opened.
    :param url: the store, instead of the one that the settings or an outer wrapper name.
    """
    if url is not None:
        settings = settings.model_copy(update={"url": url})
    if depth < len(settings.wrappers):
        name = settings.wrappers[depth]
        return registry.open_wrapper(
            name, settings.wrapper_options.get(name, {}), partial(_open, settings, depth + 1, used)
        )
    if settings.url is None:
        raise ConfigurationError(f"no store is configured: set url in [{TABLE}]")
    used.add(settings.url)
    return registry.open_provider(settings.url, settings.options)
