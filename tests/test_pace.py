"""Crowding and sharing by hand; earlier runs read back as they were written; probes where there are none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from marginlab.augment import Augment
from marginlab.cluster.machines import Machines
from marginlab.counting import Counts
from marginlab.pace import CROWDING, EARLIER, PROBED, SHARING, Paces, Phase, Unmeasurable, phases, read_earlier
from marginlab.study import Confirmation, Resources, Search
from marginlab.training import Probe, Training, TrainingFailed
from tests.report.synthetic import Synthetic, study

COUNTS = Counts(train=660, validation=160, test=200)  # 5 batches of 128
ALONE = Phase("trial", workers=1, cpus=1, gpus=0, at_once=1, there=4, inline=True)


def test_a_worker_alone_is_not_slowed_down() -> None:
    assert ALONE.crowding == ALONE.share == 1.0


@pytest.mark.parametrize(
    ("changes", "crowding", "share"),
    [
        ({"at_once": 4}, 1 + CROWDING, 1.0),
        ({"at_once": 2}, 1 + CROWDING / 3, 1.0),
        ({"workers": 4}, 1 + CROWDING, SHARING / 4),
        ({"cpus": 2, "at_once": 2}, 1 + CROWDING, 1.0),
        ({"cpus": 0.5, "at_once": 8}, (1 + CROWDING) * 2, 1.0),  # eight threads on four cores
        ({"there": 1}, 1.0, 1.0),
        ({"gpus": 1, "at_once": 4}, 1.0, 1.0),
        ({"gpus": 0.25, "at_once": 4}, 4.0, 1.0),
    ],
)
def test_crowding_and_sharing_by_hand(changes: dict[str, Any], crowding: float, share: float) -> None:
    phase = dataclasses.replace(ALONE, **changes)
    assert (phase.crowding, phase.share) == (pytest.approx(crowding), pytest.approx(share))


def test_the_phases_of_a_study() -> None:
    s = study(search=Search(12, 4, max_concurrent=3, resources=Resources(cpus=2)))
    search, confirmation = phases(s, Machines.one(8))
    assert search == Phase("trial", 1, 2.0, 0.0, 3, 8, True)
    assert confirmation == Phase("confirmation", 1, 1.0, 0.0, 8, 8, False)
    search, confirmation = phases(s, Machines.one(8, 2))
    assert (search.at_once, search.gpus, search.inline) == (2, 1.0, False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every epoch takes 4 s: data 1, forward 2, evaluation 0.5, checkpoint 0.5."""
    return Synthetic(tmp_path).whole()


def test_earlier_runs_are_read_as_they_were(folder: Path) -> None:
    rows = read_earlier(folder)
    assert len(rows) == 2 * 3 * 2  # datasets, arms, kinds
    assert {(r.train_s, r.evaluation_s, r.rest_s) for r in rows.values()} == {(3.0, 0.5, 0.5)}
    assert read_earlier(folder / "nowhere") == {}


def test_a_gap_between_two_sessions_is_not_training_time(folder: Path) -> None:
    """A row was lost, and after it the run went on a day later: neither of the two epochs has a known length."""
    place = ("oai", "fixed", "trial")
    for file in folder.glob("runs/oai/fixed/r0/trial-*/epochs.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        later = [{**r, "time": r["time"] + 86_400} for r in rows if r["epoch"] > 1]
        file.write_text("".join(json.dumps(r) + "\n" for r in [rows[0], *later]))
    assert read_earlier(folder)[place].rest_s == 0.5


@pytest.mark.parametrize("machines", [Machines.one(1.0), Machines.one(2.0), Machines.one(6.0)])
def test_what_was_measured_is_foreseen_again(folder: Path, machines: Machines) -> None:
    """However crowded the phase is taken to have been."""
    s = study()
    both = phases(s, machines)
    paces = Paces(s, folder, {"oai": COUNTS, "knees": COUNTS}, both)
    for phase in both:
        pace = paces.of("oai", "fixed", phase.kind)
        assert pace.training(5, phase) == pytest.approx(3.0)
        assert pace.evaluation(160, 160**2, phase) == pytest.approx(0.5)
        assert (pace.epoch_s, pace.source) == (0.5, EARLIER)
    assert paces.sources == {EARLIER}


def test_a_search_speaks_for_the_confirmation_until_that_has_runs(tmp_path: Path) -> None:
    written = Synthetic(tmp_path)
    for key in written.plan.searches():
        written.trials(key)
    s = study(confirmation=Confirmation(seeds=3, folds=1, resources=Resources(workers=2)))
    both = phases(s, Machines.one(2.0))
    pace = Paces(s, tmp_path, {"oai": COUNTS}, both).of("oai", "fixed", "confirmation")
    assert pace.training(5, both[1]) == pytest.approx(3.0 * SHARING / 2)  # two trials at once crowd as two workers do


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []

    def fake(training: Training, channels: int, size: int, *, images: int, threads: int, device: str) -> Probe:
        asked.append((training, channels, size, images, threads, device))
        return Probe(batch_s=0.2, image_s=0.001, pair_s=1e-8)

    monkeypatch.setattr("marginlab.pace.probe", fake)
    return asked


def small(**changes: Any) -> Any:
    """The study with arms that are quickly built."""
    s = study(**changes)
    return dataclasses.replace(
        s, arms=[dataclasses.replace(a, training=dataclasses.replace(a.training, augment=Augment(32))) for a in s.arms]
    )


def test_equal_trainings_are_probed_once(tmp_path: Path, probed: list[tuple[Any, ...]]) -> None:
    s = small()
    paces = Paces(
        s, tmp_path, {"oai": COUNTS, "knees": dataclasses.replace(COUNTS, validation=300)}, phases(s, Machines.one(2))
    )
    for dataset in ("oai", "knees"):
        for arm in s.arms:
            for kind in ("trial", "confirmation"):
                assert paces.of(dataset, arm.name, kind).batch_s == 0.2
    assert probed == [(arm.training, 1, 280, 300, 1, "cpu") for arm in s.arms]
    assert paces.sources == {PROBED}


def test_without_a_gpu_there_is_no_probe_of_one(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    s = study()
    both = phases(s, Machines.one(8, 1))
    with pytest.raises(Unmeasurable, match="fixed trains on GPUs on oai, this machine has none"):
        Paces(s, tmp_path / "new", {"oai": COUNTS}, both).of("oai", "fixed", "trial")
    assert Paces(s, folder, {"oai": COUNTS}, both).of("oai", "fixed", "trial").source == EARLIER


@pytest.mark.parametrize("fault", [TrainingFailed, ValueError, IndexError])  # a user's own loss may raise anything
def test_a_training_that_fails_at_once_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def fails(*args: Any, **keywords: Any) -> Probe:
        raise fault("The loss was nan.\nMore.")

    monkeypatch.setattr("marginlab.pace.probe", fails)
    s = small()
    with pytest.raises(Unmeasurable, match=r"^fixed could not be measured: The loss was nan\.$"):
        Paces(s, tmp_path, {"oai": COUNTS}, phases(s, Machines.one(2))).of("oai", "fixed", "trial")
