"""Images and trials, counted before anything is done, against what is there when it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marginlab.counting import Counts, counts, expected_trials, most_trials
from marginlab.data.phantom import Cxr14Phantom, EyePacsPhantom, OaiPhantom, count
from marginlab.data.raw import RawTable
from marginlab.study import Dataset, Search
from marginlab.values import InputError, value
from marginlab.workspace import Workspace


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "phantom"),
    [
        ("oai", OaiPhantom(subjects=32, size=32, seed=3)),
        ("cxr14", Cxr14Phantom(subjects=32, size=32, seed=3)),
        ("eyepacs", EyePacsPhantom(subjects=32, size=32, seed=3)),
    ],
)
def test_a_phantom_is_counted_before_it_is_drawn_as_it_is_after(tmp_path: Path, name: str, phantom: Any) -> None:
    dataset, space = Dataset(name, phantom=phantom, size=32), Workspace.at(tmp_path / "w")
    expected = counts(dataset, space)
    assert not space.root.exists()
    space.render(dataset, quiet)
    raw = counts(dataset, space)
    assert not space.packed(dataset).exists()
    assert (raw.train + raw.validation, raw.test) == (expected.train + expected.validation, expected.test)
    assert abs(raw.validation - expected.validation) <= 3  # folds hold whole subjects
    packed = space.prepare(dataset, quiet)
    data = packed.fold(0)
    assert (
        counts(dataset, space)
        == raw
        == Counts(len(data.train), len(data.validation), len(packed.test()), packed.channels)
    )
    assert (expected.channels, raw.channels) == (packed.channels, packed.channels)


@pytest.mark.parametrize("kind", [OaiPhantom, Cxr14Phantom])
def test_of_many_subjects_the_first_speak_for_all(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = count(kind(subjects=600))
    monkeypatch.setattr("marginlab.data.phantom.COUNTED", 300)
    assert count(kind(subjects=600)) == pytest.approx(exact, rel=0.1)
    assert count(kind(subjects=300)) != exact


def test_the_folds_are_those_of_the_readers_own_split(oai: Path, tmp_path: Path) -> None:
    """Ten subjects of four images, three of them at the test site: five folds of at most two of the other seven."""
    c = counts(Dataset("oai", root=str(oai)), Workspace.at(tmp_path / "w"))
    assert c == Counts(train=20, validation=8, test=12, channels=1)


@pytest.fixture
def oai(tmp_path: Path) -> Path:
    from tests.data.conftest import write_oai

    return write_oai(tmp_path / "raw", {f"{9000001 + i}": site for i, site in enumerate("ABDECCABCE")})


@value
class Chatty:
    """A reader that says more than it should."""

    def read(self, root: Path) -> RawTable:
        raise KeyError("9000001_00_knee_L.png")


def test_what_a_reader_says_goes_no_further(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the images of dataset 'mine' cannot be counted") as e:
        counts(Dataset("mine", root=str(tmp_path), reader=Chatty()), Workspace.at(tmp_path / "w"))
    assert "9000001" not in str(e.value) and e.value.__cause__ is None and e.value.__suppress_context__


def test_trials_by_hand() -> None:
    """Budget 32, trials of 4 epochs, 3 never pruned, the others at epoch 2 or never: 3 + 20 / 3; at most 3 + 20 / 2."""
    rules = Search(epochs_budget=32, max_epochs=4, pruner_startup_trials=3, pruner_warmup_epochs=1)
    assert expected_trials(rules, 32) == pytest.approx(3 + 20 / 3)
    assert most_trials(rules) == 13
    assert expected_trials(rules, 16, begun=2) == pytest.approx(1 + 12 / 3)  # one more that is never pruned
    assert expected_trials(rules, 9, begun=20) == pytest.approx(3)
    assert expected_trials(rules, 0, begun=20) == 0


def test_trials_too_short_to_be_pruned_are_as_many_as_the_budget_pays_for() -> None:
    rules = Search(epochs_budget=12, max_epochs=2, pruner_warmup_epochs=1)
    assert expected_trials(rules, 12) == most_trials(rules) == 6
    folds = Search(epochs_budget=24, max_epochs=2, folds=(0, 1), pruner_startup_trials=1, pruner_warmup_epochs=1)
    assert expected_trials(folds, 24) == pytest.approx(1 + 20 / 3)
