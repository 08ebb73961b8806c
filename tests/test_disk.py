"""Bytes foreseen against bytes written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marginlab.counting import Counts
from marginlab.data.phantom import OaiPhantom
from marginlab.disk import PNG_SHARE, ROW_BYTES, checkpoint_bytes, disk, size_of
from marginlab.plan import Plan
from marginlab.study import Arm, Confirmation, Dataset, Search, Study
from tests.test_runs import record
from tests.tiny import TRAINING, tiny_data


def test_a_run_folder_is_as_large_as_foreseen(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path = record(tmp_path / "run", stop=1).path
    size = size_of(TRAINING, 1)
    assert (path / "best.safetensors").stat().st_size == pytest.approx(size.weights, rel=0.05)
    assert (path / "last.safetensors").stat().st_size == pytest.approx(size.checkpoint, rel=0.05)
    written = (path / "best.safetensors").stat().st_size + (path / "last.safetensors").stat().st_size
    assert checkpoint_bytes(TRAINING, 1) == pytest.approx(written, rel=0.05)
    assert size.embedding == 16 * 4
    # Parquet's own frame is most of so small a file.
    assert (path / "embeddings" / "validation.parquet").stat().st_size >= len(tiny_data().validation) * size.embedding


def test_defaults_and_incumbents_are_written_too() -> None:
    """Two trials of 4 epochs, neither pruned: at most one incumbent beside the winner; 1/2 where none is the default."""
    sizes, size = {}, size_of(TRAINING, 1)
    for more in ({}, {"defaults": True}, {"incumbents": 2}):
        rules = Confirmation(seeds=3, folds=1, epochs=5, **more)  # type: ignore[arg-type]
        search = Search(8, 4, replicates=2, pruner_startup_trials=2)
        study = Study("s", [Dataset("oai", phantom=OaiPhantom(size=40), size=36)], [Arm("a", TRAINING)], search, rules)
        sizes[str(list(more))] = disk(Plan(study, {"oai": "x"}), {"oai": Counts(train=70, validation=20, test=10)})
    trial = size.weights + size.checkpoint + 20 * 64 + 4000
    without, default, incumbents = sizes.values()
    assert default.runs - without.runs == pytest.approx(3 * (trial + 10 * 64 + 5 * ROW_BYTES))  # not for each replicate
    assert incumbents.runs - without.runs == pytest.approx(2 * 2 * (1 / 2) * (trial + 4 * ROW_BYTES))
    assert incumbents.most - without.most == pytest.approx(2 * 2 * (trial + 4 * ROW_BYTES))


def test_a_study_adds_up_by_hand() -> None:
    """One search of 8 epochs: 2 trials of 4, at most 4 pruned after 2; 3 confirmation runs of 5 epochs."""
    study = Study(
        "s",
        [Dataset("oai", phantom=OaiPhantom(size=40), size=36)],
        [Arm("a", TRAINING)],
        Search(8, 4, pruner_startup_trials=0, pruner_warmup_epochs=1),
        Confirmation(seeds=3, folds=1, epochs=5),
    )
    size = size_of(TRAINING, 1)
    d = disk(Plan(study, {"oai": "x"}), {"oai": Counts(train=70, validation=20, test=10)})
    trial = size.weights + size.checkpoint + 20 * 64 + 4000
    confirmed = 3 * (trial + 10 * 64 + 5 * ROW_BYTES)
    assert d.runs == pytest.approx(8 / 3 * trial + 8 * ROW_BYTES + confirmed)
    assert d.most == pytest.approx(4 * trial + 8 * ROW_BYTES + confirmed)
    assert d.copies == pytest.approx((8 / 3 + 3) * (size.weights + 20 * 64))
    assert (d.data, d.raw) == (100 * 36 * 36, pytest.approx(100 * 40 * 40 * PNG_SHARE))
    assert d.total == pytest.approx(d.runs + d.copies + d.data + d.raw)
