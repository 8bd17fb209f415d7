"""The page ``writing-a-provider.md`` shows the whole contract. Its code is that of the example or of the contract."""

from __future__ import annotations

import inspect
import re
import tomllib
from dataclasses import fields, is_dataclass

import pytest

import session_history_hooks
from session_history.wrappers import sharded
from session_history_hooks import Limits, SessionHistoryProvider, abilities, provider, spec
from support import ROOT

PAGE = (ROOT / "docs" / "how-to" / "writing-a-provider.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "third_party_provider"
METHODS = [name for name in vars(SessionHistoryProvider) if not name.startswith("_")]
EXCERPTS = re.findall(r"^```py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PACKAGING, WRAPPER_PACKAGING = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def signature(source: str, name: str) -> str:
    """Return the lines of a ``def``, up to the colon that ends them."""
    match = re.search(rf"^ *(async )?def {name}\(.*?\) -> [^\n]+?:(?: \.\.\.)?$", source, re.MULTILINE | re.DOTALL)
    assert match is not None, name
    return match[0]


@pytest.mark.parametrize("method", METHODS)
def test_page_shows_the_signature_of_each_method(method: str) -> None:
    assert signature(inspect.getsource(provider), method) in PAGE


def test_page_states_the_number_of_methods() -> None:
    assert len(METHODS) == 12
    assert "eleven methods and its limits" in " ".join(PAGE.split())


@pytest.mark.parametrize("limit", [each.name for each in fields(Limits)])
def test_page_explains_each_limit(limit: str) -> None:
    assert f"\n- `{limit}`: " in PAGE


HOOKS = [name for name, each in vars(spec).items() if hasattr(each, f"{spec.PROJECT}_spec")]


def test_page_shows_the_signature_of_each_hook() -> None:
    assert HOOKS == ["session_history_providers", "session_history_wrappers"]
    for hook in HOOKS:
        assert signature(inspect.getsource(spec), hook) in PAGE


@pytest.mark.parametrize("name", session_history_hooks.__all__)
def test_page_names_each_public_name_and_its_fields(name: str) -> None:
    each = getattr(session_history_hooks, name)
    assert re.search(rf"\b{name}\b", PAGE)
    if is_dataclass(each) and name != "ListingCursor":
        missing = [field.name for field in fields(each) if f"`{field.name}`" not in PAGE]
        assert not missing


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda excerpt: excerpt.strip().splitlines()[0])
def test_excerpt_is_code_of_the_example_or_of_the_contract(excerpt: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in EXAMPLE.glob("*.py")]
    if any(excerpt in source for source in [*sources, inspect.getsource(sharded)]):
        return
    lines = {line for module in (provider, spec, abilities) for line in inspect.getsource(module).splitlines()}
    assert set(excerpt.splitlines()) <= lines


def test_packaging_is_that_of_the_example_and_of_this_package() -> None:
    example = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    assert set(PACKAGING.splitlines()) <= set(example.splitlines())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (
        tomllib.loads(WRAPPER_PACKAGING)["project"]["entry-points"].items()
        <= package["project"]["entry-points"].items()
    )
