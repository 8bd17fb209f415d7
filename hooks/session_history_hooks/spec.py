"""The hooks through which a plugin makes its providers and wrappers known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pluggy
from pydantic import BaseModel, ConfigDict, Field

from session_history_hooks.provider import SessionHistoryProvider

PROJECT = "session_history"
"""The entry point group of providers, and pluggy's project name."""

WRAPPERS = "session_history.wrappers"
"""The entry point group of wrappers."""

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)


class WrapperOptions(BaseModel):
    """Base of a wrapper's options: each field is an option, and an unknown option is an error.

    A field that may hold a secret, such as a URL with a password, is declared with ``Field(repr=False)``.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ProviderOptions(BaseModel):
    """Base of a provider's options: each field is an option, and an unknown option is an error.

    :ivar url: the configured URL without its query. Never shown in a ``repr``, because it may hold a password.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(repr=False)


class OpenInner(Protocol):
    """Opens the provider that a wrapper wraps, without I/O."""

    def __call__(self, url: str | None = None) -> SessionHistoryProvider:
        """Open the inner wrappers and the provider.

        :param url: the store to open, instead of the configured URL. Each call with a URL makes a new provider.
        :raises ConfigurationError: ``url`` is missing and the configuration has none, or the provider refuses it.
        """


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider that can be opened by URL.

    :ivar scheme: the URL scheme, and the name of the entry point.
    :ivar options: the options that may be configured, in the query of the URL or in the runtime configuration.
    :ivar open: makes a provider from validated options, without I/O.
    """

    scheme: str
    options: type[ProviderOptions]
    open: Callable[[Any], SessionHistoryProvider]


@dataclass(frozen=True, slots=True)
class WrapperSpec:
    """A provider around a provider, which the runtime configuration can name.

    :ivar name: the name in the configuration, and the name of the entry point.
    :ivar options: the options that may be configured in the runtime configuration.
    :ivar wrap: makes the wrapper from validated options, without I/O. It opens the provider or providers that it
        wraps with its second argument.
    """

    name: str
    options: type[WrapperOptions]
    wrap: Callable[[Any, OpenInner], SessionHistoryProvider]


@hookspec
def session_history_providers() -> Iterable[ProviderSpec]:
    """Describe the providers of this plugin."""
    yield from ()


@hookspec
def session_history_wrappers() -> Iterable[WrapperSpec]:
    """Describe the wrappers of this plugin."""
    yield from ()
