"""The URL of a store, split into its parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl

from session_history.config.validation import Written, may_be_secret
from session_history.errors import ConfigurationError

SCHEME = re.compile(r"[\w+.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """The URL of a store.

    :ivar place: the place where the URL was written, in words for an error.
    """

    scheme: str
    address: str = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    place: str

    @classmethod
    def parse(cls, url: str, place: str) -> Self:
        """Split a URL.

        :raises ConfigurationError: the URL has no scheme, or a query that is no list of options.
        """
        if not isinstance(url, str):
            raise ConfigurationError(f"{place} must be a str, not {type(url).__name__}")
        url, _, query = url.partition("?")
        scheme, separator, address = url.partition("://")
        if not separator or not SCHEME.fullmatch(scheme):  # Other text may be a part of a password.
            raise ConfigurationError(f"{place} has no scheme followed by ://, as in sqlite:///history.db")
        return cls(scheme.lower(), address, _parsed(query, place), place)

    def with_options(self, options: Mapping[str, Any], place_of: Callable[[str], str]) -> Written:
        """Return all options of the store, those of the query too.

        :param place_of: returns the place of one of ``options``.
        :raises ConfigurationError: an option is given twice, or has the name ``url``.
        """
        in_query = f"the query of {self.place}"

        def place_of_any(name: str) -> str:
            """A missing option belongs to the URL."""
            return in_query if name in self.query else place_of(name) if name in options else self.place

        if "url" in {*self.query, *options}:
            raise ConfigurationError(f"unknown option 'url' in {place_of_any('url')}: the store is {self.place}")
        if twice := sorted(self.query.keys() & options.keys()):
            places = " and in ".join(dict.fromkeys([in_query, *map(place_of, twice)]))
            raise ConfigurationError(f"given twice, in {places}: {', '.join(twice)}")
        values = {"url": f"{self.scheme}://{self.address}", **self.query, **options}
        return Written(values, place_of_any, self.query.keys() if _may_hold_password(self.query.items()) else ())


def _parsed(query: str, place: str) -> dict[str, str]:
    pairs = None
    with suppress(ValueError):  # Its text may hold a password, so it must not become the context of our error.
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    if pairs is None:
        raise ConfigurationError(
            f"the query of {place} is not a list of name=value; a ? before the query must be percent-encoded"
        )
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        option = "an option" if _may_hold_password(pairs) else repr(twice[0])
        raise ConfigurationError(f"the query of {place} names {option} twice")
    return dict(pairs)


def _may_hold_password(pairs: Collection[tuple[str, str]]) -> bool:
    """Tell whether a query may hold the rest of a password in which a ``?`` or ``&`` is not percent-encoded.

    An ``@`` ends user and password: behind the ``?`` it says that the query began within the password.
    """
    return any("@" in name or "@" in value or may_be_secret(name) for name, value in pairs)
