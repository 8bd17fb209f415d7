"""How a plugin makes its provider known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pluggy
from pydantic import BaseModel, ConfigDict, Field

from session_history_hooks.provider import SessionHistoryProvider

PROJECT = "session_history"
"""The entry point group, and pluggy's project name."""

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)


class ProviderOptions(BaseModel):
    """Base of a provider's options; a field is an option, and an unknown option is an error.

    :ivar url: the configured URL without its query. Never shown in a ``repr``: it may hold a password.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(repr=False)


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider that can be opened by URL.

    :ivar scheme: the URL scheme, and the name of the entry point.
    :ivar options: what may be configured; the query of the URL and the runtime config end up here.
    :ivar open: makes a provider of validated options, without I/O.
    """

    scheme: str
    options: type[ProviderOptions]
    open: Callable[[Any], SessionHistoryProvider]


@hookspec
def session_history_providers() -> Iterable[ProviderSpec]:
    """Describe the providers of this plugin."""
    yield from ()
