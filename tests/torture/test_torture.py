"""``make torture``, two blows of each scenario; and that it finds what it looks for."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from session_history_hooks import Entry
from torture.__main__ import torture
from torture.manifest import MESSAGES, Manifest, Pen, flaws, messages
from torture.scenarios import SCENARIOS
from torture.writers import PROCESSES, Writers


@pytest.mark.parametrize("name", SCENARIOS)
def test_acknowledged_writes_survive_every_blow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "ak")
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "sk")
    assert torture(name, SCENARIOS[name], 2) == []


def test_no_blow_falls_before_all_writers_write(tmp_path: Path) -> None:
    with Writers(f"sqlite:///{tmp_path}/history.db", tmp_path) as writers:
        assert len(Manifest.read(writers.manifest).writers) == PROCESSES


def test_a_writer_that_ends_is_told_and_leaves_no_other_behind(tmp_path: Path) -> None:
    writers = Writers("sqlite:////nowhere/history.db", tmp_path)
    with pytest.raises(AssertionError, match=r"a writer ended:\n(.|\n)*nowhere"), writers:
        pass
    assert not writers.running


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    pen = Pen(tmp_path / "manifest")
    for number in range(4):
        pen.attempt("s", f"a/{number}")
    for number in range(3):
        pen.acknowledged("s", f"a/{number}")
    return Manifest.read(tmp_path / "manifest")


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (["a/0", "a/1", "a/2"], []),
        (["a/0", "a/1", "a/2", "a/3"], []),
        (["a/0", "a/2"], ["s has lost 1 acknowledged turns"]),
        ([], ["s has lost 3 acknowledged turns"]),
        (["a/0", "a/1", "a/2", "a/2"], ["s holds 1 turns twice"]),
        (["a/0", "a/1", "a/2", "b/0"], ["s holds 1 turns that nobody attempted, b/0 the first"]),
        (["a/0", "a/2", "a/1"], ["s holds the turns of a in another order"]),
    ],
)
def test_flaws_are_found(manifest: Manifest, log: list[str], found: list[str]) -> None:
    assert flaws(manifest, {"s": log}) == found


@pytest.mark.parametrize(
    ("entry", "flaw"),
    [
        (Entry("a/3", b"", origin="o3", keys=("m3",)), None),
        (Entry("b/0", b"", origin="o4", keys=("m3",)), None),
        (Entry("a/3", b"", origin="other", keys=("m3",)), "another origin"),
        (Entry("a/3", b"", origin="o3", keys=("m2",)), "stored twice"),
    ],
)
def test_messages_are_stored_once_with_the_origin_of_their_append(
    tmp_path: Path, entry: Entry, flaw: str | None
) -> None:
    pen = Pen(tmp_path / "manifest")
    for number in range(4):
        pen.attempt(MESSAGES, f"a/{number}", f"o{number}")
    stored = [Entry(f"a/{number}", b"", origin=f"o{number}", keys=(f"m{number}",)) for number in range(3)]
    with pytest.raises(AssertionError, match=flaw) if flaw else nullcontext():
        assert messages(Manifest.read(tmp_path / "manifest"), [*stored, entry])[3] == entry.id


def test_half_a_line_is_none_and_hides_no_other(tmp_path: Path) -> None:
    file = tmp_path / "manifest"
    file.write_text("\ntry s a/0 1.5 -\n\ntry s")
    Pen(file).attempt("s", "b/0")
    assert Manifest.read(file).attempted["s"].keys() == {"a/0", "b/0"}


def test_a_loss_is_allowed_where_no_more_was_promised(manifest: Manifest) -> None:
    manifest.attempted["s"]["a/1"], manifest.acknowledged["s"]["a/1"] = 10, 20
    for lossy in ((8, 12), (12, 14), (18, 22)):
        assert flaws(manifest, {"s": ["a/0", "a/2"]}, lossy=[lossy]) == []
    for lossy in ((8, 9), (21, 22)):
        assert flaws(manifest, {"s": ["a/0", "a/2"]}, lossy=[lossy]) != []
