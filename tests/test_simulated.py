"""Recorded curves replayed: what is recorded comes out, what is not is refused, and a study of them runs through the same parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from marginlab.executing import execute
from marginlab.plan import Plan, SearchKey
from marginlab.report import words
from marginlab.report.terminal import render
from marginlab.results import Results
from marginlab.runs import RunFolder
from marginlab.simulated import Curves
from marginlab.study import Confirmation, Dataset, Search, Study
from marginlab.training import Run, TrainingFailed
from marginlab.values import InputError
from marginlab.workspace import Workspace
from tests.test_study import FIXED

EPOCHS = 3
SEEDS = 3


def height(epsilon: float) -> float:
    return 0.3 + 0.5 * epsilon


def curve(epsilon: float, seed: int, epoch: int) -> float:
    return height(epsilon) * (1 - 0.5**epoch) + 0.01 * (seed - 1)


def record(folder: Path, arm: str = FIXED.name, cells: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6), **more: Any) -> Path:
    """An export, as small as can be: cells x seeds; beside them a pruned trial and a confirmation run."""
    runs, epochs = [], []
    for cell, epsilon in enumerate(cells):
        for seed in range(SEEDS):
            i = f"{cell}-{seed}"
            params = json.dumps({"margin.epsilon": epsilon, **more})
            runs.append((i, "trial", "oai", arm, params, "complete", True))
            rows = range(EPOCHS + 1)
            epochs += [(i, e, curve(epsilon, seed, e), 0.1 + e, 7.0, 0.5) for e in rows]
    runs += [
        ("x", "trial", "oai", arm, '{"margin.epsilon": 9.0}', "pruned", True),
        ("y", "confirmation", "oai", arm, '{"margin.epsilon": 9.0}', "complete", True),
    ]
    epochs += [(i, 1, 0.99, 1.0, 1.0, 1.0) for i in "xy"]
    folder.mkdir(parents=True, exist_ok=True)
    labels = ["id", "kind", "dataset", "arm", "params", "state", "phantom"]
    pl.DataFrame(runs, schema=labels, orient="row").write_parquet(folder / "runs.parquet")
    figures = ["id", "epoch", "val/map", "time/forward_s", "train/loss", "time/checkpoint_s"]
    pl.DataFrame(epochs, schema=figures, orient="row").write_parquet(folder / "epochs.parquet")
    return folder


def study(folder: Path, **more: Any) -> Study:
    return Study(
        "replayed",
        [Dataset("oai", curves=str(folder))],  # type: ignore[arg-type]
        [FIXED],  # type: ignore[arg-type]
        Search(epochs_budget=12, max_epochs=EPOCHS),
        Confirmation(seeds=2, folds=1),
        **more,
    )


def replayed(curves: Curves, params: dict[str, Any], seed: int = 0, epochs: int = EPOCHS, **resume: int) -> list[Any]:
    rows: list[Any] = []

    def report(epoch: int, metrics: dict[str, float], state: Any) -> bool:
        rows.append((epoch, metrics))
        return True

    run = Run("oai", curves.fingerprint, FIXED.configured({}, epochs), 0, seed)
    labels = {"dataset": "oai", "arm": FIXED.name, "params": params}
    curves.replay(run, labels, report, {k: torch.tensor(v) for k, v in resume.items()} or None)
    return rows


def values(rows: list[Any]) -> np.ndarray:
    return np.array([row["val/map"] for _, row in rows])


@pytest.fixture
def curves(tmp_path: Path) -> Curves:
    return Curves.open(record(tmp_path / "curves"))


def test_a_recorded_configuration_is_its_mean_and_the_noise_of_a_seed(curves: Curves) -> None:
    mean = np.array([height(0.2) * (1 - 0.5**e) for e in range(EPOCHS + 1)])
    off = {round(float((values(replayed(curves, {"margin.epsilon": 0.2}, seed)) - mean)[2]), 6) for seed in range(40)}
    # Three seeds lie 0.01 apart; a mean over three takes a third of what each differs by.
    assert off == {round(x * float(np.sqrt(1.5)), 6) for x in (-0.01, 0.0, 0.01)}


def test_between_recorded_configurations_the_nearest_weigh_most(curves: Curves) -> None:
    seed = next(s for s in range(40) if values(replayed(curves, {"margin.epsilon": 0.2}, s))[0] == 0)
    at = values(replayed(curves, {"margin.epsilon": 0.25}, seed))
    mean = (9 * height(0.2) + height(0.4)) / 10 * (1 - 0.5 ** np.arange(EPOCHS + 1))  # 0.05 and 0.15 away
    assert np.abs(at - mean).max() < 0.0125  # the noise may be that of either's seeds
    last = values(replayed(curves, {"margin.epsilon": 0.6}, 1))
    beyond = values(replayed(curves, {"margin.epsilon": 0.8}, 1))
    assert abs(last[-1] - beyond[-1]) < 0.05  # nothing is extrapolated


def test_a_lucky_single_run_does_not_count_where_others_were_trained_again(tmp_path: Path) -> None:
    folder = record(tmp_path / "curves")
    plain = values(replayed(Curves.open(folder), {"margin.epsilon": 0.3}))
    for name, lucky in (
        ("runs", {"id": "z", "params": '{"margin.epsilon": 0.3}'}),
        ("epochs", {"id": "z", "val/map": 0.9}),
    ):
        frame = pl.read_parquet(folder / f"{name}.parquet")
        first = frame.filter(pl.col("id") == "0-0").with_columns(**{k: pl.lit(v) for k, v in lucky.items()})
        pl.concat([frame, first]).write_parquet(folder / f"{name}.parquet")
    assert np.array_equal(plain, values(replayed(Curves.open(folder), {"margin.epsilon": 0.3})))


def test_figures_and_seconds_are_replayed_and_no_others(curves: Curves) -> None:
    rows = replayed(curves, {"margin.epsilon": 0.2})
    assert [epoch for epoch, _ in rows] == [0, 1, 2, 3]
    assert all(set(row) == {"val/map", "time/forward_s"} for _, row in rows)
    assert rows[2][1]["time/forward_s"] == pytest.approx(2.1)


def test_a_replay_goes_on_where_it_was(curves: Curves) -> None:
    whole = replayed(curves, {"margin.epsilon": 0.3}, 5)
    assert replayed(curves, {"margin.epsilon": 0.3}, 5, epoch=1) == whole[2:]


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    one, same = (Curves.open(record(tmp_path / name)) for name in ("a", "b"))
    other = Curves.open(record(tmp_path / "c", cells=(0.0, 0.6)))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    with pytest.raises(InputError, match="other curves"):
        one.require(other.fingerprint)


def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    with pytest.raises(InputError, match="no recorded curves in .*marginlab export"):
        workspace.check_sources(study(tmp_path / "nothing"))
    folder = record(tmp_path / "curves")
    workspace.check_sources(study(folder))
    with pytest.raises(InputError, match="end at epoch 3, and the study asks for 4"):
        Curves.open(folder).check("oai", [FIXED.name], 4, "val/map")
    with pytest.raises(InputError, match="no arm 'else' on 'oai'; they have"):
        Curves.open(folder).check("oai", ["else"], 1, "val/map")
    with pytest.raises(InputError, match="do not have val/hits"):
        Curves.open(folder).check("oai", [FIXED.name], 1, "val/hits")
    with pytest.raises(TrainingFailed, match="no recorded curve for epoch 4"):
        replayed(Curves.open(folder), {"margin.epsilon": 0.2}, epochs=4)
    named = Curves.open(record(tmp_path / "named", mining="hard"))
    with pytest.raises(TrainingFailed, match="no recorded curve for .*soft"):
        replayed(named, {"margin.epsilon": 0.2, "mining": "soft"})


def test_files_that_are_no_export_are_named(tmp_path: Path) -> None:
    folder = record(tmp_path / "curves")
    (folder / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"runs\.parquet cannot be read"):
        Curves.open(folder)
    pl.DataFrame({"id": ["a"]}).write_parquet(folder / "runs.parquet")
    with pytest.raises(InputError, match=r"runs\.parquet lacks the columns kind"):
        Curves.open(folder)


def test_a_dataset_is_one_thing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only one of them"):
        Dataset("oai", root="x", curves="y")


def test_a_simulated_run_is_recorded_as_any_other(tmp_path: Path) -> None:
    folder = record(tmp_path / "curves")
    s = study(folder)
    curves = Curves.open(Workspace.at(tmp_path).packed(s.datasets[0]))
    plan = Plan(s, {"oai": curves.fingerprint}, ("oai",))
    task = plan.trial(SearchKey("oai", FIXED.name, 0), 0, {"margin.epsilon": 0.2}, 0)
    assert task.labels["simulated"] is True and task.labels["phantom"] is True
    run = RunFolder.create(tmp_path / task.folder, task.run, task.labels)
    told = []

    def decide(epoch: int, row: dict[str, Any]) -> bool:
        told.append(row["val/map"])
        return epoch < 2

    first = execute(run.path, folder, decide, open_test=True)
    assert first is not None and (first["state"], first["epochs"], first["test"]) == ("pruned", 2, {})
    assert first["trained_on"]["device"] == "simulated"
    assert told == [row["val/map"] for row in run.epochs()[1:]]
    assert run.embeddings("validation") is None


def test_everything_shown_says_that_it_was_simulated(tmp_path: Path) -> None:
    from rich.console import Console

    from marginlab.declaration import declare

    s = study(record(tmp_path / "curves"))
    plan = Plan(s, {"oai": "curves-0"}, ("oai",))
    declare(tmp_path / "s", plan)
    results = Results.open(tmp_path / "s")
    assert words.caution(results, "oai") == f"{words.SIMULATED}; {words.PHANTOM}"
    console = Console(width=200, record=True)
    with console.capture() as captured:
        console.print(render(results))
    assert captured.get().count(words.SIMULATED) >= 2


def test_what_a_configuration_is_worth_has_no_noise(curves: Curves) -> None:
    worth = curves.expected("oai", FIXED.name, {"margin.epsilon": 0.2}, "val/map", 3)
    assert worth == pytest.approx(height(0.2) * (1 - 0.5**3))
