"""``docs/writing-a-provider.md`` has all of the contract, and its code is the example's or the contract's own."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass

import pytest

import session_history_hooks
from session_history_hooks import Limits, SessionHistoryProvider, provider, spec
from support import ROOT

PAGE = (ROOT / "docs" / "writing-a-provider.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "third_party_provider"
METHODS = [name for name in vars(SessionHistoryProvider) if not name.startswith("_")]
EXCERPTS = re.findall(r"^```py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def signature(source: str, name: str) -> str:
    """The lines of a ``def``, up to the colon that ends them."""
    found = re.search(rf"^ *(async )?def {name}\(.*?\) -> [^\n]+?:(?: \.\.\.)?$", source, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_there_with_its_signature(method: str) -> None:
    assert signature(inspect.getsource(provider), method) in PAGE


def test_the_number_of_methods() -> None:
    assert len(METHODS) == 11
    assert "ten methods and its limits" in PAGE


@pytest.mark.parametrize("limit", [each.name for each in fields(Limits)])
def test_every_limit_is_there(limit: str) -> None:
    assert f"\n| `{limit}` | " in PAGE


HOOKS = [name for name, each in vars(spec).items() if hasattr(each, f"{spec.PROJECT}_spec")]


def test_every_hook_is_there_with_its_signature() -> None:
    assert HOOKS == ["session_history_providers"]
    for hook in HOOKS:
        assert signature(inspect.getsource(spec), hook) in PAGE


@pytest.mark.parametrize("name", session_history_hooks.__all__)
def test_every_public_name_and_field_is_there(name: str) -> None:
    each = getattr(session_history_hooks, name)
    assert re.search(rf"\b{name}\b", PAGE)
    if is_dataclass(each) and name != "ListingCursor":
        missing = [field.name for field in fields(each) if f"`{field.name}`" not in PAGE]
        assert not missing


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda excerpt: excerpt.strip().splitlines()[0])
def test_code_is_taken_from_the_example_or_the_contract(excerpt: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in EXAMPLE.glob("*.py")]
    if any(excerpt in source for source in sources):
        return
    lines = {line for module in (provider, spec) for line in inspect.getsource(module).splitlines()}
    assert set(excerpt.splitlines()) <= lines


def test_the_packaging_is_the_example_s() -> None:
    shown = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    assert set(shown.splitlines()) <= set((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8").splitlines())
