"""Losses that carry something through ``fit``: built, trained, saved, and found again by a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import marginlab.losses
from marginlab.losses import CrossBatchMemory, MultiSimilarity, ProxyAnchor, SoftTriple
from marginlab.losses.library import LibraryLoss
from marginlab.margins import NoMargin
from marginlab.runs import Recorder, RunFolder
from marginlab.training import State, _Trainer, fit
from tests.tiny import Keep, timeless, tiny_data, tiny_run

EVERY = [v for v in vars(marginlab.losses).values() if isinstance(v, type) and issubclass(v, LibraryLoss)]
CARRYING = [ProxyAnchor(), SoftTriple(centers=2), CrossBatchMemory(MultiSimilarity(), size=100)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def begin(path: Path, loss: Any) -> RunFolder:
    return RunFolder.create(path, tiny_run(loss=loss, margin=NoMargin()), {})


def train(path: Path, stop: int | None = None) -> None:
    """Go on with a run from nothing but its folder, as another process would."""
    folder = RunFolder.open(path)
    recorder = Recorder(folder)

    def report(epoch: int, metrics: dict[str, float], state: State) -> bool:
        recorder.epoch(epoch, metrics, state)
        return epoch != stop

    fit(folder.run, tiny_data(), report, resume=folder.checkpoint(), device="cpu")


def story(path: Path) -> tuple[list[dict[str, float]], dict[str, str]]:
    """Text, in which a margin that is not set, a NaN, equals itself."""
    folder = RunFolder.open(path)
    return [timeless(r) for r in folder.epochs()], {k: str(v.tolist()) for k, v in (folder.checkpoint() or {}).items()}


@pytest.mark.parametrize("loss", CARRYING, ids=lambda v: type(v).__name__)
def test_a_run_that_is_interrupted_after_every_epoch_is_the_same_bit_for_bit(tmp_path: Path, loss: Any) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert begin(whole, loss).run.training.loss == loss  # read back from JSON
    train(whole)
    begin(pieces, loss)
    for epoch in range(3):
        train(pieces, stop=epoch)
    train(pieces)
    rows, checkpoint = story(whole)
    assert [r["epoch"] for r in rows] == [0, 1, 2, 3]
    assert any(k.startswith("loss/") for k in checkpoint)
    assert story(pieces) == (rows, checkpoint)


def test_proxies_learn_at_their_own_rate_and_there_is_one_for_each_identity() -> None:
    data, seen = tiny_data(), Keep()
    run = tiny_run(loss=ProxyAnchor(lr_factor=50), epochs=1, lr=1e-3, margin=NoMargin())
    trainer = _Trainer(run, data, torch.device("cpu"))
    assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([1e-3, 5e-2])
    assert [g["weight_decay"] for g in trainer.optimizer.param_groups] == [1e-4, 1e-4]
    identities = len(set(data.train.label.tolist()))
    assert [tuple(p.shape) for p in trainer.proxies] == [(identities, 16)]
    fit(run, data, seen, device="cpu")
    start, end = (s["loss/module.proxies"] for s in seen.states)
    moved = (end - start).abs()
    assert (moved > 0).all() and float(moved.median()) == pytest.approx(2 * 5e-2, rel=0.5)  # two steps of Adam
    assert seen.rows[1]["train/lr"] == 1e-3


@pytest.mark.parametrize("kind", EVERY)
def test_every_loss_of_the_library_trains(kind: Any) -> None:
    seen = Keep()
    fit(tiny_run(loss=kind(), epochs=1, margin=NoMargin()), tiny_data(), seen, device="cpu")
    assert 0 < seen.rows[1]["val/map"] <= 1 and seen.rows[1]["train/grad_norm"] > 0
