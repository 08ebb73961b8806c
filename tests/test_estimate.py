"""The arithmetic of an estimate by hand, with given paces and counts: no batch is trained here but in one test."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marginlab import estimate as e
from marginlab.cluster.machines import Machines
from marginlab.counting import Counts
from marginlab.data.phantom import OaiPhantom
from marginlab.estimate import Estimate, against, duration, estimate
from marginlab.pace import CROWDING, EARLIER, EPOCH_S, PROBED, SHARING, WRITTEN_PER_S
from marginlab.plan import Plan
from marginlab.remaining import Remaining, SearchLeft
from marginlab.study import Arm, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Probe
from marginlab.workspace import Workspace
from tests.report.synthetic import Synthetic, study
from tests.tiny import TRAINING

COUNTS = Counts(train=330, validation=100, test=200)  # 10 batches of 32
BATCH_S, IMAGE_S, PAIR_S = 0.2, 0.002, 1e-6
CROWDED = 1 + CROWDING
EVALUATION_S = 100 * IMAGE_S + 100**2 * PAIR_S
TEST_S = 200 * IMAGE_S + 200**2 / 4 * PAIR_S
WRITING_S = EPOCH_S + 1e6 / WRITTEN_PER_S
EPOCH = CROWDED * (10 * BATCH_S + EVALUATION_S) + WRITING_S  # of one of two runs at once, on two cores
RULES = Search(epochs_budget=8, max_epochs=4, pruner_startup_trials=2)  # two whole trials


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Counts, paces and sizes are given; returns what was probed."""
    probed: list[Any] = []

    def probe(training: Any, *args: Any, **keywords: Any) -> Probe:
        probed.append(training)
        return Probe(BATCH_S, IMAGE_S, PAIR_S)

    monkeypatch.setattr("marginlab.pace.probe", probe)
    monkeypatch.setattr("marginlab.pace.checkpoint_bytes", lambda training, channels: 1e6)
    monkeypatch.setattr("marginlab.estimate.counts", lambda dataset, workspace: COUNTS)
    return probed


def a_study(search: Search = RULES, confirmation: Confirmation | None = None, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "datasets": [Dataset("oai", phantom=OaiPhantom(size=36), size=36)],
        "arms": [Arm("one", TRAINING), Arm("two", dataclasses.replace(TRAINING, lr=2e-3))],
    }
    fields |= changes
    return Study("s", search=search, confirmation=confirmation or Confirmation(seeds=3, folds=1, epochs=5), **fields)


def of(study: Study, tmp_path: Path, cpus: float = 2.0, gpus: float = 0.0) -> Estimate:
    space = Workspace.at(tmp_path / "w")
    plan = Plan(study, {d.name: "x" for d in study.datasets})
    return estimate(plan, space, Machines.one(cpus, gpus), space.study(study.name))


def test_a_new_study_by_hand(tmp_path: Path, given: list[Any]) -> None:
    found = of(a_study(), tmp_path)
    # Two searches of two trials, two at once: 16 epochs, 4 starts.
    search = e.WORKER_START_S + (16 * EPOCH + 4 * (e.TRIAL_S + CROWDED * EVALUATION_S)) / 2
    # Six runs of five epochs in two worker groups of one worker each.
    run = 5 * EPOCH + CROWDED * (EVALUATION_S + TEST_S) + e.RUN_S
    assert found.steps["search"] == pytest.approx(search)
    assert found.steps["confirmation"] == pytest.approx(e.GROUP_START_S + 6 * run / 2)
    assert found.steps["phantoms"] == pytest.approx(630 * 36 * 36 * e.RENDER_PIXEL_S)
    assert list(found.steps) == ["phantoms", "prepare", "ray", "search", "confirmation", "tracking", "report"]
    assert found.total == pytest.approx(sum(found.steps.values()))
    assert (found.source, found.unknown, found.counted) == (PROBED, "", {"oai": COUNTS})
    assert len(given) == 2  # once per arm
    assert not (tmp_path / "w").exists()


def test_defaults_and_incumbents_by_hand(tmp_path: Path) -> None:
    """Four trials of a search: 1 + 1/2 + 1/3 + 1/4 lead, one is the winner, one the default: 1/12 is left, on 12 seeds."""
    search = Search(epochs_budget=16, max_epochs=4, pruner_startup_trials=4)
    found = of(a_study(search, Confirmation(seeds=3, folds=1, epochs=5, defaults=True, incumbents=12)), tmp_path)
    confirmed = 5 * EPOCH + CROWDED * (EVALUATION_S + TEST_S) + e.RUN_S
    incumbent = 4 * EPOCH + CROWDED * EVALUATION_S + e.RUN_S
    assert found.steps["confirmation"] == pytest.approx(e.GROUP_START_S + (12 * confirmed + 2 * incumbent) / 2)
    runs = 2 * (4 + 3 + 3 + 1)
    assert found.steps["report"] == pytest.approx(e.REPORT_S + runs * e.REPORTED_RUN_S)


def test_one_at_a_time_is_not_crowded(tmp_path: Path) -> None:
    found = of(a_study(dataclasses.replace(RULES, max_concurrent=1)), tmp_path)
    epoch = 10 * BATCH_S + EVALUATION_S + WRITING_S
    assert found.steps["search"] == pytest.approx(e.WORKER_START_S + 16 * epoch + 4 * (e.TRIAL_S + EVALUATION_S))


def test_more_cores_take_more_runs_at_once_but_not_more_than_there_are(tmp_path: Path) -> None:
    four, many = (of(a_study(), tmp_path, cpus=n).steps for n in (4.0, 64.0))
    assert four["search"] == pytest.approx(
        e.WORKER_START_S + (16 * EPOCH + 4 * (e.TRIAL_S + CROWDED * EVALUATION_S)) / 4
    )
    # Four trials are four trials, and leave most cores idle; so do six runs.
    slow, slower = 1 + CROWDING * 3 / 63, 1 + CROWDING * 5 / 63
    alone = 10 * BATCH_S + EVALUATION_S
    trial = 4 * (slow * alone + WRITING_S) + e.TRIAL_S + slow * EVALUATION_S
    run = 5 * (slower * alone + WRITING_S) + slower * (EVALUATION_S + TEST_S) + e.RUN_S
    assert many["search"] == pytest.approx(e.WORKER_START_S + trial)
    assert many["confirmation"] == pytest.approx(e.GROUP_START_S + run)


def test_workers_share_batches_and_embedding_but_not_the_ranking(tmp_path: Path) -> None:
    found = of(a_study(confirmation=Confirmation(3, 1, 5, resources=Resources(workers=2))), tmp_path)
    half = SHARING / 2
    evaluation = CROWDED * (half * 100 * IMAGE_S + 100**2 * PAIR_S)
    test = CROWDED * (half * 200 * IMAGE_S + 100**2 * PAIR_S)
    epoch = CROWDED * half * 10 * BATCH_S + evaluation + WRITING_S
    run = 5 * epoch + evaluation + test + e.RUN_S
    assert found.steps["confirmation"] == pytest.approx(e.GROUP_START_S + 6 * run)


def test_trials_in_worker_groups_pay_their_start_each(tmp_path: Path) -> None:
    grouped = of(a_study(dataclasses.replace(RULES, resources=Resources(launcher="train"))), tmp_path)
    inline = of(a_study(), tmp_path)
    assert grouped.steps["search"] - inline.steps["search"] == pytest.approx(
        4 * (e.GROUP_START_S - e.TRIAL_S) / 2 - e.WORKER_START_S
    )


def test_a_time_budget_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = a_study(dataclasses.replace(RULES, time_budget_s=10.0))
    assert of(study, tmp_path).steps["search"] == pytest.approx(10.0 + e.TRIAL_S + 4 * EPOCH)
    left = Remaining({k: SearchLeft(1, 7, 1) for k in Plan(study, {}).searches()}, {}, 3, searched_s=8.0)
    monkeypatch.setattr("marginlab.estimate.remaining", lambda plan, folder: left)
    assert of(study, tmp_path).steps["search"] == pytest.approx(2.0 + e.TRIAL_S + 4 * EPOCH)


def test_only_what_is_left_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One search is over; of its runs one is done and one stands at epoch 2. The other has 4 epochs left, one whole trial."""
    study = a_study()
    one, two = Plan(study, {}).searches()
    left = Remaining({one: SearchLeft(8, 0, 2), two: SearchLeft(4, 4, 1)}, {one: (2, None), two: (None,) * 3}, 3, 0.0)
    monkeypatch.setattr("marginlab.estimate.remaining", lambda plan, folder: left)
    found = of(study, tmp_path)
    alone = 10 * BATCH_S + EVALUATION_S  # one trial is left: it has the machine to itself
    assert found.steps["search"] == pytest.approx(e.WORKER_START_S + 4 * (alone + WRITING_S) + e.TRIAL_S + EVALUATION_S)
    runs = (3 + 4 * 5) * EPOCH + CROWDED * (4 * EVALUATION_S + 5 * TEST_S) + 5 * e.RUN_S
    assert found.steps["confirmation"] == pytest.approx(e.GROUP_START_S + runs / 2)


def test_a_study_that_is_done_trains_and_probes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[Any]
) -> None:
    study = a_study()
    keys = Plan(study, {}).searches()
    left = Remaining({k: SearchLeft(8, 0, 2) for k in keys}, {k: () for k in keys}, 3, 0.0)
    monkeypatch.setattr("marginlab.estimate.remaining", lambda plan, folder: left)
    monkeypatch.setattr("marginlab.workspace.Workspace.packed", lambda self, dataset: tmp_path)
    found = of(study, tmp_path)
    assert list(found.steps) == ["ray", "tracking", "report"] and found.source == "" and given == []


def test_earlier_runs_are_what_it_goes_by(tmp_path: Path, given: list[Any]) -> None:
    """Every epoch took 4 s, evaluations 0.5 s: as one of two runs at once, so will they."""
    question = study(datasets=[Dataset("oai", root="/raw/oai")], search=Search(12, 4, pruner_startup_trials=3))
    written = Synthetic(tmp_path / "w" / "studies" / "demo", question)
    for key in written.plan.searches():
        written.trials(key)
    found = of(question, tmp_path)  # no optuna.db came along, so all is left
    trials = 3 * 3
    assert found.steps["search"] == pytest.approx(e.WORKER_START_S + (3 * 12 * 4.0 + trials * (e.TRIAL_S + 0.5)) / 2)
    assert (found.source, given) == (EARLIER, [])


def test_a_study_for_gpus_that_are_not_here_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[Any]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = of(a_study(), tmp_path, cpus=8, gpus=2)
    assert (found.steps, found.total, given) == ({}, 0.0, [])
    assert found.unknown == (
        "There is no estimate: one trains on GPUs on oai, this machine has none to measure with, and there are no earlier runs."
    )
    assert found.counted == {"oai": COUNTS}
    assert against(found, {"search": 60.0, "ray": 5.0}) == f"{found.unknown} It took 65 s."


def test_estimate_against_truth() -> None:
    foreseen = Estimate({"ray": 13.0, "search": 140.0, "confirmation": 120.0, "tracking": 1.0, "report": 2.0})
    truth = {"prepare": 9.0, "ray": 15.0, "search": 147.0, "confirmation": 132.0, "tracking": 1.0, "report": 2.5}
    assert (
        against(foreseen, truth) == "Estimated 276 s, took 298 s (search 140 -> 147, confirmation 120 -> 132)."
    )  # preparing was not estimated
    assert against(Estimate({"tracking": 1.0, "report": 2.0}), truth) == ""  # nothing was left to train
    assert against(Estimate({"search": 7000.0}), {}) == "Estimated 117 min, took 0 s (search 117 min -> 0)."


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (599, "599 s"), (600, "10 min"), (7300, "2.0 h"), (3 * 86_400, "3.0 days")]
)
def test_durations_are_as_exact_as_an_estimate_deserves(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_estimating_loads_neither_ray_nor_mlflow() -> None:
    code = (
        "import sys, marginlab.estimate, marginlab.outline; print([m for m in ('ray', 'mlflow') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": "platform"}
    )
    assert out.stdout.strip() == "[]"
