"""What ``marginlab plan`` shows of a study: its rows, read as text."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from marginlab.cluster.machines import Machines
from marginlab.counting import Counts
from marginlab.data.phantom import OaiPhantom
from marginlab.declaration import declare
from marginlab.estimate import Estimate
from marginlab.files import write_json
from marginlab.outline import outline, planned
from marginlab.search import Book
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.workspace import Workspace
from tests.report.synthetic import Synthetic
from tests.tiny import TRAINING

FORECAST = Estimate(
    {"ray": 13.0, "search": 300.0, "confirmation": 700.0},
    "two measured batches per arm",
    counted={"oai": Counts(90, 20, 30)},
)


def a_study(seeds: int = 3) -> Study:
    return Study(
        "s",
        [Dataset("oai", phantom=OaiPhantom(subjects=8, size=36), size=36)],
        [Arm("one", TRAINING), Arm("two", dataclasses.replace(TRAINING, lr=2e-3))],
        Search(8, 4, pruner_startup_trials=2, max_concurrent=2),
        Confirmation(seeds=seeds, folds=2, epochs=5),
        Comparison(contrast=("one", "two")),
    )


def shown(study: Study, space: Workspace, forecast: Estimate = FORECAST, **available: float) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(
        outline(planned(study, space), space, Machines.one(available.get("CPU", 4), available.get("GPU", 0)), forecast)
    )
    return " ".join(console.export_text().split())


def test_a_new_study_row_by_row(tmp_path: Path) -> None:
    text = shown(a_study(), Workspace.at(tmp_path / "w"))
    for row in (
        "datasets oai (phantom; 90 images train, 20 validate, 30 test)",
        "search 2 searches of 8 epochs, at least 2 trials each of at most 4; 2 at once, each 1 x (1 CPU), inline",
        "confirmation 12 runs of 5 epochs (3 seeds x 2 folds for each of 2 winners); 4 at once",
        "epochs in all 76",
        "resources search takes 2 of 4 CPUs; confirmation takes 4 of 4 CPUs",
        "time about 17 min (ray 13 s, search 300 s, confirmation 12 min; from two measured batches per arm)",
        "disk about ",
        "are free",
        "can show with 3 seeds, p is 0.25 at best (paired sign flips)",
        "from a mean difference of 2.5 SD on, and in four studies of five where the true one is 3.1 SD",
    ):
        assert row in text, row
    assert "begun" not in text and not (tmp_path / "w").exists()


def test_what_defaults_and_incumbents_will_take_at_most(tmp_path: Path) -> None:
    study = a_study()
    rules = dataclasses.replace(study.confirmation, defaults=True, incumbents=2)
    text = shown(dataclasses.replace(study, confirmation=rules), Workspace.at(tmp_path))
    assert "published defaults 12 runs of 5 epochs for 2 of them, fewer where one wins its search" in text
    assert (
        "incumbents up to 4 runs of 4 epochs, probably about 0: each search's best so far, at every point of it" in text
    )
    assert f"epochs in all up to {76 + 12 * 5 + 4 * 4} " in text


def test_resources_with_gpus(tmp_path: Path) -> None:
    text = shown(a_study(), Workspace.at(tmp_path), GPU=3.0)
    assert "search takes 2 of 4 CPUs and 2 of 3 GPUs; confirmation takes 3 of 4 CPUs and 3 of 3 GPUs" in text


def test_one_seed_shows_nothing(tmp_path: Path) -> None:
    assert "can show nothing: one seed has no spread" in shown(a_study(seeds=1), Workspace.at(tmp_path))


@pytest.mark.parametrize(
    ("seeds", "replicates", "confirmatory", "said"),
    [
        (
            3,
            1,
            False,
            "counts as exploratory: 3 seeds cannot reach p = 0.05 without assumptions, because their signs alone",
        ),
        (6, 3, False, "counts as exploratory, as declared; its seeds would do for Comparison(confirmatory=True)"),
        (
            6,
            1,
            True,
            "counts as confirmatory for the configurations that the searches find; Search(replicates=3) would",
        ),
        (6, 3, True, "counts as confirmatory"),
    ],
)
def test_a_study_is_called_what_it_can_be(
    tmp_path: Path, seeds: int, replicates: int, confirmatory: bool, said: str
) -> None:
    declared = Comparison(contrast=("one", "two"), confirmatory=confirmatory)
    search = Search(8, 4, replicates=replicates, pruner_startup_trials=2)
    question = dataclasses.replace(a_study(seeds), search=search, comparison=declared)
    text = shown(question, Workspace.at(tmp_path))
    assert said in text and ("exploratory" in text) != confirmatory


def test_why_there_is_no_estimate(tmp_path: Path) -> None:
    text = shown(a_study(), Workspace.at(tmp_path), Estimate({}, unknown="There is no estimate: no images."))
    assert "time There is no estimate: no images." in text and "disk about" not in text and "are free" in text


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Workspace, Study]:
    """The first search is over, one of its confirmation runs done and one at epoch 2; the second has spent one epoch of 8."""
    study, space = a_study(), Workspace.at(tmp_path)
    folder = space.study("s")
    plan = dataclasses.replace(planned(study, space), data={"oai": "0123456789abcdef"})
    declare(folder, plan)
    book = Book(plan, f"sqlite:///{folder / 'optuna.db'}")
    first, second = plan.searches()
    for token, key, epochs in (("a", first, 4), ("b", second, 1), ("c", first, 4)):
        ticket = book.ask(token)
        assert not isinstance(ticket, str) and ticket.key == key
        for step in range(1, epochs + 1):
            book.report(token, step, 0.5)
        if epochs == 4:
            book.tell(token, "complete")
    done, half, *_ = (folder / t.folder for t in plan.confirmations(first, {}))
    write_json(done / "result.json", {"state": "complete"})
    half.mkdir(parents=True)
    (half / "epochs.jsonl").write_text('{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n')
    return space, study


def test_a_study_that_has_begun(begun: tuple[Workspace, Study]) -> None:
    space, study = begun
    assert planned(study, space).data == {"oai": "0123456789abcdef"}  # the data was deleted; what it was is known
    text = shown(study, space)
    assert "time left about 17 min" in text
    assert "oai/one 2 8 0 1 5 23" in text  # trials, epochs spent, left; runs confirmed, left, and 3 + 4 x 5 epochs
    assert "oai/two 1 1 7 0 6 30" in text


def test_a_study_that_is_done(begun: tuple[Workspace, Study]) -> None:
    text = shown(begun[1], begun[0], Estimate({"ray": 13.0}, counted=FORECAST.counted))
    assert "time left nothing is left to train; run again, it takes about 13 s (ray 13 s)" in text


def test_with_confirmation_figures_the_reach_is_in_the_metrics_own_units(tmp_path: Path) -> None:
    """Differences on oai: 0.010, 0.015, 0.020, so SD 0.005; on knees -0.01, 0.01, 0.03, so SD 0.02. t[0.975, 2] = 4.3027."""
    space = Workspace.at(tmp_path)
    written = Synthetic(space.study("demo"))
    written.whole()
    small: Any = dataclasses.replace(
        written.study, datasets=[Dataset("oai", root="/raw/oai"), Dataset("knees", root="/raw/knees")]
    )
    text = shown(small, space, Estimate({}, unknown="There is no estimate: no images."))
    assert "oai: SD 0.005 so far, so 0.012 and 0.015 in test/map; knees: SD 0.02 so far, so 0.05 and 0.062" in text
