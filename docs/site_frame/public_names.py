"""Signatures of the reference: each one once, with all keywords, and with names that can be imported."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from inspect import Parameter, Signature
from typing import Any, get_overloads, get_type_hints

from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature
from sphinx.util.typing import stringify_annotation

import session_history
import session_history.runtimes.agentscope  # before autodoc rewrites the annotations of the base of its models
import session_history_hooks
from session_history import MessageInput, errors
from session_history.handlers.signature import AnyIdentity
from session_history.presets import PostgresqlArguments, RedisArguments
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.turns.options import PATIENCE
from session_history.turns.turn import TurnRequest

PUBLIC = {
    name: module.__name__ for module in (session_history_hooks, errors, session_history) for name in module.__all__
}
"""The module to import each name from."""

NOT_CONSTRUCTED = ("Session", "SessionList", "Turn", "TurnRecorder")
"""Classes whose objects come from a service."""

DEFAULTS: dict[type, type] = {PostgresqlArguments: PostgresqlProvider, RedisArguments: RedisProvider}
"""The signature that has the defaults of a dict of options, if it is not that of a turn."""

ALIASES = {
    stringify_annotation(AnyIdentity, "smart"): "~session_history.Identity",
    stringify_annotation(MessageInput, "smart"): "~session_history.MessageInput",
}

PLAIN = {
    r" \| [~\w.]*\b_Unset": "",
    r" ?= ?(UNSET|<factory>)": " = ...",
    r"~?(?:types|typing)\.Annotated\[(.*?), [~\w.]+\(.*?(?:\)\]\)\]|\)\])": r"\1",
    r"\[\[\.\.\.\]": "[...",
    r"\bPATIENCE\b": f"{PATIENCE}",
}
"""Patterns of text that says nothing to users, and what replaces it."""


def forget_overloads(_: Sphinx, function: object, __: bool) -> None:  # noqa: FBT001 - the interface of the event
    """Let a function have the signature of its implementation."""
    with suppress(PycodeError):
        analyzer = ModuleAnalyzer.for_module(getattr(function, "__module__", None) or "builtins")
        analyzer.analyze()
        analyzer.overloads.clear()


def show(
    _: Sphinx, what: str, name: str, obj: Any, __: object, arguments: str | None, returned: str | None
) -> tuple[str, str] | None:
    if what not in {"class", "exception", "function", "method"} or arguments is None:
        return None
    if is_opaque(name, obj):
        return "", ""
    function = obj.__init__ if inspect.isclass(obj) else obj
    return plain(with_keywords(arguments, function)), "" if returned == "~typing.Any" else plain(returned or "")


def is_opaque(name: str, obj: object) -> bool:
    """Return whether a class has a constructor that is not for users."""
    is_abstract = inspect.isclass(obj) and (issubclass(obj, Enum) or getattr(obj, "_is_protocol", False))
    return is_abstract or name.rpartition(".")[2] in NOT_CONSTRUCTED


def with_keywords(arguments: str, function: Callable[..., Any]) -> str:
    """Replace ``**options`` by the keywords that a type checker takes."""
    if not inspect.isfunction(function):
        return arguments
    annotated = [*get_overloads(function), function][0]
    unpacked = re.search(r"Unpack\[(\w+)\]", str(annotated.__annotations__.get("options")))
    if unpacked is None:
        return arguments
    options: type = function.__globals__[unpacked[1]]
    keywords = stringify_signature(Signature(parameters(options)), unqualified_typehints=True)[1:-1]
    if "*, " in arguments.replace(" **", ""):
        keywords = keywords.removeprefix("*, ")
    return re.sub(r"\*\*options: [^)]*", lambda _: keywords, arguments)


def parameters(options: type) -> list[Parameter]:
    defaults = inspect.signature(DEFAULTS.get(options, TurnRequest)).parameters
    return [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=defaults[name].default)
        for name, kind in get_type_hints(options).items()
        if name in defaults  # the function itself has the others
    ]


def plain(text: str) -> str:
    """Return a signature in names that can be imported."""
    for alias, name in ALIASES.items():
        text = text.replace(alias, name)
    for pattern, replacement in PLAIN.items():
        text = re.sub(pattern, replacement, text)
    return re.sub(r"~session_history[\w.]*\.(\w+)", lambda match: importable(match[0], match[1]), text)


def importable(path: str, name: str) -> str:
    return f"~{PUBLIC[name]}.{name}" if name in PUBLIC else path


def show_public_bases(_: Sphinx, __: str, ___: type, ____: object, bases: list[type]) -> None:
    """Replace private bases of a class by their own bases."""
    while private := [base for base in bases if base.__name__.startswith("_")]:
        place = bases.index(private[0])
        bases[place : place + 1] = [base for base in private[0].__bases__ if base not in bases]


def without_ways_back(_: Sphinx, page: str, __: str, context: dict[str, Any], ___: object) -> None:
    """Remove the links from source code to the reference: Sphinx knows one module for all names of a file."""
    if page.startswith("_modules/"):
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context.get("body", ""))


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("html-page-context", without_ways_back)
    app.connect("autodoc-before-process-signature", forget_overloads)
    app.connect("autodoc-process-signature", show)
