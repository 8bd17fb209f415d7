"""The chain that the configuration names: wrappers around a provider."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

from session_history.config import registry
from session_history.config.settings import Settings
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
    provider = _open(settings, 0, used, _Store(settings.url, settings.sources.url))
    if settings.url is not None and settings.url not in used:
        table, wrappers = settings.sources.table(), ", ".join(settings.wrappers)
        logger.warning("%s: no wrapper uses url, since %s name their own", table, wrappers)
    return provider


class _Store(NamedTuple):
    """A URL, and the place where it was written."""

    url: str | None
    place: str


def _open(
    settings: Settings, depth: int, used: set[str], store: _Store, url: str | None = None
) -> SessionHistoryProvider:
    """Open the wrappers from ``depth`` inwards, and the provider.

    :param used: collects the URLs that are opened.
    :param store: the store that the settings or an outer wrapper name.
    :param url: another store, which the next outer wrapper names.
    """
    sources = settings.sources
    if url is not None:
        outer = settings.wrappers[depth - 1]
        store = _Store(url, f"a URL of wrapper {outer} in {sources.wrapper(outer)}")
    if depth < len(settings.wrappers):
        name = settings.wrappers[depth]
        return registry.open_wrapper(
            name,
            settings.wrapper_options.get(name, {}),
            partial(_open, settings, depth + 1, used, store),
            place=sources.table(),
            place_of_options=sources.wrapper(name),
        )
    if store.url is None:
        raise ConfigurationError(f"no store is configured: set url in {sources.table()}")
    used.add(store.url)
    return registry.open_provider(store.url, settings.options, place=store.place, place_of_option=sources.option)
