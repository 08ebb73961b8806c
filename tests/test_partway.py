"""A run that is kept between two batches and goes on there is the same, bit for bit, as one that was left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marginlab import runs
from marginlab.executing import never
from marginlab.losses import CrossBatchMemory, MultiSimilarity, ProxyAnchor
from marginlab.margins import AutoMargin, NoMargin, PerBatch
from marginlab.networks import Unit
from marginlab.runs import Between, Recorder, RunFolder
from marginlab.training import State, fit
from marginlab.values import value
from tests.tiny import CROP, Keep, timeless, tiny_data, tiny_run


@value
class Dropping:
    """A network that draws random numbers in every step."""

    def build(self, channels: int) -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(channels * CROP**2, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), Unit()]
        return nn.Sequential(*layers)


CASES: dict[str, dict[str, Any]] = {
    "automargin": {},
    "per batch": {"margin": PerBatch(AutoMargin())},
    "proxies": {"loss": ProxyAnchor(), "margin": NoMargin()},
    "memory": {"loss": CrossBatchMemory(MultiSimilarity(), size=100), "margin": NoMargin()},
    "random, and carries statistics": {"network": Dropping()},
}


class Gone(Exception):
    pass


def die(epoch: int, step: int, kept: dict[str, Tensor]) -> Callable[..., None]:
    """A machine that goes between two batches; what it kept, copied as a file would."""

    def between(e: int, s: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        if (e, s) == (epoch, step):
            kept.update({k: v.detach().clone() for k, v in tensors().items()})
            raise Gone

    return between


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_within_an_epoch(case: str) -> None:
    run, data = tiny_run(epochs=2, batch_size=16, **CASES[case]), tiny_data()
    whole = Keep()
    fit(run, data, whole, device="cpu")
    for place in ((1, 1), (2, 3)):
        first, rest, kept = Keep(), Keep(), dict[str, Tensor]()
        with pytest.raises(Gone):
            fit(run, data, first, device="cpu", between=die(*place, kept))
        fit(run, data, rest, resume=kept, device="cpu")
        # As text, in which a margin that is not set, a NaN, equals itself.
        assert str([timeless(r) for r in first.rows + rest.rows]) == str([timeless(r) for r in whole.rows])
        for (k, a), (name, b) in zip(rest.states[-1].items(), whole.states[-1].items(), strict=True):
            assert k == name and torch.equal(a.nan_to_num(), b.nan_to_num()), k


def test_it_is_offered_between_batches_alone() -> None:
    seen: list[tuple[int, int]] = []
    fit(
        tiny_run(epochs=2, batch_size=16),
        tiny_data(),
        Keep(),
        device="cpu",
        between=lambda e, s, _: seen.append((e, s)),
    )
    assert seen == [(e, s) for e in (1, 2) for s in (1, 2, 3)]  # four batches


def begin(path: Path) -> RunFolder:
    return RunFolder.create(path, tiny_run(epochs=2, batch_size=16), {})


def train(path: Path, leaving: Callable[[], bool] = never, die_at: tuple[int, int] | None = None) -> None:
    folder = RunFolder.open(path)
    recorder, keeper = Recorder(folder), Between(path, leaving)

    def report(epoch: int, metrics: dict[str, float], state: State) -> bool:
        recorder.epoch(epoch, metrics, state)
        return True

    def between(epoch: int, step: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        keeper(epoch, step, tensors)
        if (epoch, step) == die_at:
            raise Gone

    fit(folder.run, tiny_data(), report, resume=folder.checkpoint(), device="cpu", between=between)


def test_a_machine_that_is_about_to_go_keeps_its_run_within_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LEAVING_S", 0.0)
    whole, moved = begin(tmp_path / "whole"), begin(tmp_path / "moved")
    train(whole.path)
    assert not (whole.path / "partway.safetensors").exists()  # a short epoch is not worth one
    with pytest.raises(Gone):
        train(moved.path, lambda: True, die_at=(2, 2))
    assert moved.partway() == 2 and int(moved.checkpoint()["epoch"]) == 1  # type: ignore[index]
    assert [moved.begin_attempt("s") for _ in range(2)] == [1, 2]
    with pytest.raises(Gone):
        train(moved.path, lambda: True, die_at=(2, 3))
    train(moved.path)
    assert not (moved.path / "partway.safetensors").exists() and moved.partway() == 0
    assert [timeless(r) for r in moved.epochs()] == [timeless(r) for r in whole.epochs()]
    a, b = moved.checkpoint(), whole.checkpoint()
    assert a is not None and b is not None and all(torch.equal(a[k], b[k]) for k in a)
    row = moved.epochs()[-1]
    assert row["time/forward_s"] > 0 and row["time/images_per_s"] > 0


def test_a_long_epoch_is_kept_now_and_then_and_a_full_disk_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PARTWAY_S", 0.0)
    folder = begin(tmp_path / "run")
    with pytest.raises(Gone):
        train(folder.path, die_at=(1, 2))
    assert folder.partway() == 2

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(Gone):
        patch.setattr(runs, "_save", full)
        train(folder.path, die_at=(1, 3))
    assert folder.partway() == 2
    train(folder.path)
    assert [r["epoch"] for r in folder.epochs()] == [0, 1, 2]


def test_one_of_another_epoch_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PARTWAY_S", 0.0)
    folder = begin(tmp_path / "run")
    with pytest.raises(Gone):
        train(folder.path, die_at=(1, 2))
    old = (folder.path / "partway.safetensors").read_bytes()
    train(folder.path)
    (folder.path / "partway.safetensors").write_bytes(old)  # its removal failed
    assert folder.partway() == 0 and int(folder.checkpoint()["epoch"]) == 2  # type: ignore[index]
