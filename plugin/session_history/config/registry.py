"""Providers by URL scheme and wrappers by name: the only module that uses pluggy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

import pluggy

from session_history.config.url import StoreUrl
from session_history.config.validation import Written, validated
from session_history.errors import (
    ConfigurationError,
    MissingDriver,
    PluginError,
    SessionHistoryError,
    UnknownScheme,
    UnknownWrapper,
)
from session_history_hooks import OpenInner, ProviderSpec, SessionHistoryProvider, WrapperSpec, spec
from session_history_hooks.provider import missing_members
from session_history_hooks.spec import PROJECT, WRAPPERS

S = TypeVar("S", ProviderSpec, WrapperSpec)


@dataclass(frozen=True)
class _Kind(Generic[S]):
    """A kind of plugin.

    :ivar group: the group of its entry points.
    :ivar label: a template for its name in an error.
    :ivar describe: calls the hook.
    :ivar name_of: the name that a description is found by.
    :ivar unknown: makes the error for a name that no plugin has, from the name, the installed names and the place
        where the name was written.
    """

    group: str
    label: str
    spec: type[S]
    describe: Callable[[Any], Iterable[Iterable[object]]]
    name_of: Callable[[S], str]
    unknown: Callable[[str, tuple[str, ...], str], Exception]

    def installed(self) -> tuple[str, ...]:
        return tuple(sorted({point.name.lower() for point in entry_points(group=self.group)}))


_PROVIDER = _Kind(
    PROJECT,
    "{}://",
    ProviderSpec,
    lambda hook: hook.session_history_providers(),
    lambda found: found.scheme,
    UnknownScheme,
)
_WRAPPER = _Kind(
    WRAPPERS,
    "wrapper {}",
    WrapperSpec,
    lambda hook: hook.session_history_wrappers(),
    lambda found: found.name,
    UnknownWrapper,
)


def _place_of_argument(_: str) -> str:
    return "the arguments of from_url"


def open_provider(
    url: str,
    options: Mapping[str, Any],
    *,
    place: str = "the URL given to from_url",
    place_of_option: Callable[[str], str] = _place_of_argument,
) -> SessionHistoryProvider:
    """Make the provider of a URL, without I/O. Only the plugin for this scheme is imported.

    :param options: more options than those in the query of the URL.
    :param place: the place where the URL was written, for an error.
    :param place_of_option: returns the place of one of ``options``, for an error.
    :raises ConfigurationError: the provider does not accept the URL or an option.
    :raises UnknownScheme: no installed plugin provides this scheme.
    :raises MissingDriver: the plugin needs a package that is not installed.
    :raises PluginError: the plugin is broken.
    """
    parsed = StoreUrl.parse(url, place)
    written = parsed.with_options(options, place_of_option)
    found, point = _load(_PROVIDER, parsed.scheme, place)
    valid = validated(found.options, written, source=f"{found.scheme}://")
    with _places_named(written):
        return _opened(point, lambda: found.open(valid))


def open_wrapper(
    name: str, options: Mapping[str, Any], open_inner: OpenInner, *, place: str, place_of_options: str
) -> SessionHistoryProvider:
    """Make a wrapper, without I/O. Only the plugin with this name is imported.

    :param open_inner: opens the provider that the wrapper wraps.
    :param place: the place where the name was written, for an error.
    :param place_of_options: the place of ``options``, for an error.
    :raises ConfigurationError: the wrapper does not accept an option.
    :raises UnknownWrapper: no installed plugin provides this wrapper.
    :raises MissingDriver: the plugin needs a package that is not installed.
    :raises PluginError: the plugin is broken.
    """
    found, point = _load(_WRAPPER, name.lower(), place)
    valid = validated(found.options, Written(options, lambda _: place_of_options), source=f"wrapper {found.name}")
    return _opened(point, lambda: found.wrap(valid, open_inner))


def installed_schemes() -> tuple[str, ...]:
    """Return the schemes for which a plugin is installed. No plugin is imported."""
    return _PROVIDER.installed()


def installed_wrappers() -> tuple[str, ...]:
    """Return the names of the installed wrappers. No plugin is imported."""
    return _WRAPPER.installed()


def _load(kind: _Kind[S], name: str, place: str) -> tuple[S, EntryPoint]:
    """Import the plugin with this name, and return its description of ``name``."""
    plugins = pluggy.PluginManager(PROJECT)
    plugins.add_hookspecs(spec)
    point = _entry_point(kind, name, place)
    with _plugin_errors(point):
        plugins.register(point.load(), name=point.name)
        described = [each for descriptions in kind.describe(plugins.hook) for each in descriptions]
    for each in described:
        if isinstance(each, kind.spec) and kind.name_of(each).lower() == name:
            return each, point
    others = [repr(kind.name_of(each)) if isinstance(each, kind.spec) else type(each).__name__ for each in described]
    raise PluginError(f"{_source(point)} does not describe {name!r}; it describes: {', '.join(others) or 'nothing'}")


def _entry_point(kind: _Kind[S], name: str, place: str) -> EntryPoint:
    points = [point for point in entry_points(group=kind.group) if point.name.lower() == name]
    if not points:
        raise kind.unknown(name, kind.installed(), place)
    if len({point.value for point in points}) > 1:
        sources = ", ".join(sorted(map(_source, points)))
        raise PluginError(f"more than one plugin provides {name!r}: {sources}. Uninstall all but one.")
    return points[0]


def _opened(point: EntryPoint, make: Callable[[], object]) -> SessionHistoryProvider:
    with _plugin_errors(point):
        opened = make()
    if missing := missing_members(opened):
        raise PluginError(
            f"{_source(point)} opens a {type(opened).__name__}, which is not a SessionHistoryProvider: it lacks "
            f"{', '.join(missing)}"
        )
    return cast("SessionHistoryProvider", opened)


@contextmanager
def _places_named(written: Written) -> Iterator[None]:
    """Name the places of the options in an error that a provider raises about them."""
    try:
        yield
    except ConfigurationError as error:
        if type(error) is ConfigurationError:  # A subclass has a text of its own.
            places = written.places_in(str(error))
            place = f"in {places}" if places else f"for {written.place_of('url')}"
            error.args = (f"{error} ({place})",)
        raise


@contextmanager
def _plugin_errors(point: EntryPoint) -> Iterator[None]:
    """Name the plugin in every error that it raises."""
    try:
        yield
    except SessionHistoryError:
        raise
    except ModuleNotFoundError as error:
        if error.name and not f"{point.module}.".startswith(f"{error.name}."):
            raise MissingDriver(_missing(point, error.name), name=error.name) from error
        raise PluginError(f"{_source(point)} cannot be imported: {error!r}") from error
    except Exception as error:
        raise PluginError(f"{_source(point)} does not work: {error!r}") from error


def _missing(point: EntryPoint, module: str) -> str:
    package = point.dist.name if point.dist else "the plugin"
    extras = point.dist.metadata.get_all("Provides-Extra") or () if point.dist else ()
    # A plugin with several schemes has one extra, which has the name of a scheme or of the module.
    extra = next((name for name in (point.name, point.module.rpartition(".")[2]) if name in extras), None)
    remedy = f"pip install '{package}[{extra}]'" if extra else f"install {package} with all its requirements"
    if module.partition(".")[0] in sys.stdlib_module_names:
        remedy = "this Python was built without it"
    return f"{_label(point)} needs the module {module!r}: {remedy}"


def _label(point: EntryPoint) -> str:
    kind = next(kind for kind in (_PROVIDER, _WRAPPER) if kind.group == point.group)
    return kind.label.format(point.name)


def _source(point: EntryPoint) -> str:
    return f"{point.value} of {point.dist.name if point.dist else 'an unknown package'}"
