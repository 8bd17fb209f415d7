"""Providers by URL scheme: the only module that touches pluggy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from urllib.parse import parse_qsl

import pluggy
from pydantic import ValidationError

from session_history.errors import (
    ConfigurationError,
    MissingDriver,
    PluginError,
    SessionHistoryError,
    UnknownScheme,
    did_you_mean,
)
from session_history_hooks import ProviderOptions, ProviderSpec, SessionHistoryProvider, spec
from session_history_hooks.spec import PROJECT

_UNKNOWN = "Extra inputs"
"""How pydantic begins to say that there is no such option."""


def open_provider(url: str, options: Mapping[str, Any]) -> SessionHistoryProvider:
    """Make the provider of a URL, without I/O. Only the plugin of its scheme is loaded.

    :param options: more options than those in the query of the URL.
    :raises ConfigurationError: a URL or option that the provider does not take.
    :raises UnknownScheme: no plugin for this scheme.
    :raises MissingDriver: the plugin lacks a package.
    :raises PluginError: the plugin is broken.
    """
    scheme, address, query = _split(url)
    provider = _load(scheme)
    settings = _validated(provider, {"url": f"{scheme}://{address}", **_merged(query, options)}, query)
    point = _entry_point(scheme)
    with _plugin_errors(point):
        opened = provider.open(settings)
    if not isinstance(opened, SessionHistoryProvider):
        raise PluginError(f"{_source(point)} opens a {type(opened).__name__}, which is no SessionHistoryProvider")
    return opened


def installed_schemes() -> tuple[str, ...]:
    """The schemes that a plugin is installed for. Loads none of them."""
    return tuple(sorted({point.name.lower() for point in entry_points(group=PROJECT)}))


def _split(url: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, what follows it, and query of a URL."""
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL must be a str, not {type(url).__name__}")
    url, _, query = url.partition("?")
    scheme, separator, address = url.partition("://")
    if not separator:
        raise ConfigurationError("the URL has no scheme followed by ://, as in sqlite:///history.db")
    pairs = None
    with suppress(ValueError):  # whose text is not to be the context of another error, either
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    if pairs is None:
        raise ConfigurationError(
            "the query of the URL is not a list of name=value; a ? ahead of it must be percent-encoded"
        )
    if len(dict(pairs)) < len(pairs):
        raise ConfigurationError("the query of the URL names an option twice")
    return scheme.lower(), address, dict(pairs)


def _merged(query: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    twice = sorted((query.keys() & options.keys()) | ({"url"} & {*query, *options}))
    if twice:
        raise ConfigurationError(f"given in the URL and as an option: {', '.join(twice)}")
    return {**query, **options}


def _load(scheme: str) -> ProviderSpec:
    plugins = pluggy.PluginManager(PROJECT)
    plugins.add_hookspecs(spec)
    point = _entry_point(scheme)
    with _plugin_errors(point):
        plugins.register(point.load(), name=point.name)
        found = [each for specs in plugins.hook.session_history_providers() for each in specs]
    for each in found:
        if isinstance(each, ProviderSpec) and each.scheme.lower() == scheme:
            return each
    others = ", ".join(repr(each.scheme) if isinstance(each, ProviderSpec) else type(each).__name__ for each in found)
    raise PluginError(
        f"{_source(point)} describes no provider for {scheme!r}; what it describes: {others or 'nothing'}"
    )


def _entry_point(scheme: str) -> EntryPoint:
    points = [point for point in entry_points(group=PROJECT) if point.name.lower() == scheme]
    if not points:
        raise UnknownScheme(scheme, installed_schemes())
    if len({point.value for point in points}) > 1:
        sources = ", ".join(sorted(map(_source, points)))
        raise PluginError(f"more than one plugin provides {scheme!r}: {sources}. Uninstall all but one.")
    return points[0]


@contextmanager
def _plugin_errors(point: EntryPoint) -> Iterator[None]:
    """Say whose fault it is, whatever a plugin raises."""
    try:
        yield
    except SessionHistoryError:
        raise
    except ModuleNotFoundError as error:
        if error.name and not f"{point.module}.".startswith(f"{error.name}."):
            raise MissingDriver(_missing(point, error.name), name=error.name) from error
        raise PluginError(f"{_source(point)} can not be imported: {error!r}") from error
    except Exception as error:
        raise PluginError(f"{_source(point)} does not work: {error!r}") from error


def _missing(point: EntryPoint, module: str) -> str:
    package = point.dist.name if point.dist else "the plugin"
    extras = point.dist.metadata.get_all("Provides-Extra") or () if point.dist else ()
    # Of several schemes of one plugin, the extra has the name of one: the module's.
    extra = next((name for name in (point.name, point.module.rpartition(".")[2]) if name in extras), None)
    remedy = f"pip install '{package}[{extra}]'" if extra else f"install {package} with all it requires"
    if module.partition(".")[0] in sys.stdlib_module_names:
        remedy = "this Python was built without it"
    return f"{point.name}:// needs the module {module!r}: {remedy}"


def _source(point: EntryPoint) -> str:
    return f"{point.value} of {point.dist.name if point.dist else 'an unknown package'}"


def _validated(provider: ProviderSpec, values: dict[str, Any], query: Mapping[str, str]) -> ProviderOptions:
    try:
        return provider.options.model_validate(values)
    except SessionHistoryError:
        raise
    except ValidationError as error:
        found = [(flaw["loc"], flaw["msg"]) for flaw in error.errors(include_input=False)]
    # Raised from here, the error has no context, which would name the options.
    if _may_hold_a_password(query) and any(message.startswith(_UNKNOWN) for _, message in found):
        flaws = "characters such as ? and @ in a password must be percent-encoded"
    else:
        known = sorted({field.alias or name for name, field in provider.options.model_fields.items()} - {"url"})
        flaws = "; ".join(_flaw(place, message, known) for place, message in found)
    raise ConfigurationError(f"{provider.scheme}://: {flaws}")


def _may_hold_a_password(query: Mapping[str, str]) -> bool:
    """A ? in a password that was not percent-encoded makes options of its rest; their names must not show."""
    return any("@" in word for pair in query.items() for word in pair)


def _flaw(place: tuple[int | str, ...], message: str, known: Sequence[str]) -> str:
    name = ".".join(map(str, place))
    if message.startswith(_UNKNOWN):
        return f"unknown option {name!r}{did_you_mean(name, known) or '. Options: ' + (', '.join(known) or 'none')}"
    return f"{name}: {message.removeprefix('Value error, ')}".removeprefix(": ")
