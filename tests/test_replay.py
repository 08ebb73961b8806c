"""A recorded run again: the same to the last bit, parted, or failed the way it had."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marginlab import usercode
from marginlab.cli import main
from marginlab.replay import Replay, find_run, replay, summary
from marginlab.runs import Recorder, RunFolder
from marginlab.training import Run, TrainingFailed, fit
from marginlab.values import InputError, to_json
from tests.report.synthetic import edit_json
from tests.tiny import tiny_data, tiny_run

PACKED: Any = SimpleNamespace(fold=lambda index: tiny_data())  # all that a replay asks of a packed dataset

LOSS = """
from __future__ import annotations
from marginlab.losses import AdaTriplet
from marginlab.values import value


@value
class Fuse:
    '''AdaTriplet that goes off as soon as AutoMargin has moved epsilon: in epoch 2.'''

    slots = ("epsilon", "beta")

    def __call__(self, pairs, margin):
        self.burn(float(margin.epsilon))
        return AdaTriplet()(pairs, margin)

    def burn(self, epsilon):
        if epsilon != 0.25:
            raise ValueError(f"the fuse has burnt at {pairs_of(epsilon)}")


def pairs_of(epsilon):
    return "the second epoch"
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    study = tmp_path / "w" / "studies" / "s"
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}")
    return tmp_path / "w"


@pytest.fixture
def fuse(tmp_path: Path, workspace: Path) -> Iterator[Any]:
    """A user's loss, as it is when a study runs; then as it is in a new process, from the study's own copy."""
    source = tmp_path / "fuses.py"
    source.write_text(LOSS)
    module, path = usercode.load(source), list(sys.path)
    yield module.Fuse()
    sys.modules.pop(module.__name__, None)
    sys.path[:] = path


def record(workspace: Path, run: Run, name: str = "trial-0000-f0-abc", chunk: int | None = None) -> RunFolder:
    """As a launcher does it."""
    path = workspace / "studies" / "s" / "runs" / "oai" / "arm" / "r0" / name
    folder = RunFolder.create(path, run, {"kind": "trial"})
    recorder = Recorder(folder, {"chunk": chunk} if chunk else None)

    def report(epoch: int, metrics: dict[str, float], state: Any) -> bool:
        recorder.epoch(epoch, metrics, state)
        return True

    try:
        fit(run, tiny_data(), report, device="cpu", chunk=chunk)
    except TrainingFailed as e:
        recorder.finish("failed", str(e))
    except Exception as e:
        recorder.finish("failed", f"{type(e).__name__}: {e}")
    else:
        recorder.finish("complete")
    return folder


def shorten(folder: RunFolder, epochs: int) -> None:
    """Leave this many rows."""
    path = folder.path / "epochs.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:epochs]))


def again(folder: RunFolder, **options: Any) -> Replay:
    return replay(folder, PACKED, device="cpu", **options)


def test_a_run_is_the_same_to_the_last_bit(workspace: Path) -> None:
    folder, told = record(workspace, tiny_run(epochs=2)), []
    found = again(folder, tell=told.append)
    assert [e.epoch for e in told] == [0, 1, 2] and found.epochs == told
    assert found.same and found.recorded is None and found.failed is None
    assert summary(found).startswith("The same numbers, to the last bit, in all 3 epochs")
    assert len(again(folder, epochs=1).epochs) == 2


def test_a_run_in_chunks_is_the_same_to_the_last_bit_in_the_same_chunks(workspace: Path) -> None:
    folder = record(workspace, tiny_run(epochs=1), chunk=12)
    assert again(folder).same
    edit_json(folder.path / "result.json", trained_on={})
    assert not again(folder).same  # in one piece it adds up in another order


def test_it_is_said_where_numbers_part(workspace: Path) -> None:
    folder = record(workspace, tiny_run(epochs=2))
    rows = [json.loads(line) for line in (folder.path / "epochs.jsonl").read_text().splitlines()]
    rows[2]["train/loss"] += 0.5
    (folder.path / "epochs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = again(folder)
    assert not found.same and [e.same for e in found.epochs] == [True, True, False]
    assert "They part in epoch 2, most in train/loss (by 0.5); val/map differs by at most 0." in summary(found)


def test_a_loss_that_went_off_goes_off_again_in_the_users_own_lines(workspace: Path, fuse: Any, tmp_path: Path) -> None:
    run = tiny_run(loss=fuse)
    usercode.keep(workspace / "studies" / "s", to_json(run))
    folder = record(workspace, run)
    assert folder.result()["reason"] == "ValueError: the fuse has burnt at the second epoch"  # type: ignore[index]
    (tmp_path / "fuses.py").unlink()
    del sys.modules[type(fuse).__module__]
    importlib.invalidate_caches()
    found = again(find_run(workspace, folder.path.name))
    assert [e.epoch for e in found.epochs] == [0, 1] and found.same and found.failed is not None
    assert summary(found).endswith("It failed again in epoch 2: ValueError: the fuse has burnt at the second epoch.")
    kept = workspace / "studies" / "s" / "code" / f"{type(fuse).__module__}.py"
    number = {text: n for n, text in enumerate(LOSS.splitlines(), start=1)}
    assert found.failed.lines == (
        f"{kept}, line {number['        self.burn(float(margin.epsilon))']}, in __call__: self.burn(float(margin.epsilon))",
        f"{kept}, line {len(LOSS.splitlines()) - 4}, in burn: "
        'raise ValueError(f"the fuse has burnt at {pairs_of(epsilon)}")',
    )


def test_a_loss_that_stopped_being_a_number_does_so_again(workspace: Path) -> None:
    folder = record(workspace, tiny_run(lr=1e30))
    assert [r["epoch"] for r in folder.epochs()] == [0]  # it ended before its first epoch did
    found = again(folder)
    assert found.same and "It failed again in epoch 1: The loss was nan in epoch 1" in summary(found)
    assert found.failed is not None and found.failed.lines == ()  # nobody's own code


@pytest.mark.parametrize("rows", [0, 2])
def test_a_failure_that_does_not_recur(workspace: Path, rows: int) -> None:
    folder = record(workspace, tiny_run(epochs=2))
    last = folder.epochs()[rows]["val/map"]
    shorten(folder, rows)
    edit_json(folder.path / "result.json", state="failed", reason="It ended its processes 3 times.")
    found = again(folder)
    assert not found.same and [e.epoch for e in found.epochs] == list(range(rows))
    assert f"It did not fail this time: epoch {rows} ended with val/map {last:.6f}." in summary(found)
    assert "It had failed with: It ended its processes 3 times." in summary(found)


def test_a_failure_after_the_last_epoch_is_out_of_reach(workspace: Path) -> None:
    folder = record(workspace, tiny_run(epochs=1))
    edit_json(folder.path / "result.json", state="failed", reason="KeyError: 'test'")
    found = again(folder)
    assert not found.same and "its epochs have all ended. It had failed after them: KeyError" in summary(found)


def test_other_failures_than_the_recorded_one(workspace: Path) -> None:
    folder = record(workspace, tiny_run(lr=1e30))
    result = folder.path / "result.json"
    reason = folder.result()["reason"]  # type: ignore[index]
    edit_json(result, reason="OSError: the disk is full")
    found = again(folder)
    assert not found.same and "It had failed otherwise, in epoch 1: OSError: the disk is full" in summary(found)
    edit_json(result, reason=f"It ended its processes 3 times, last with TrainingFailed: {reason}")
    assert again(folder).same  # the launcher quotes it
    edit_json(result, state="complete", reason="")
    found = again(folder)
    assert found.same and found.failed is None  # one epoch is recorded, and it is the same
    lines = (folder.path / "epochs.jsonl").read_text()
    (folder.path / "epochs.jsonl").write_text(lines + lines.replace('"epoch": 0', '"epoch": 1'))
    found = again(folder)
    assert not found.same and "It failed in epoch 1, which was recorded as having ended well" in summary(found)


def test_fewer_epochs_than_the_failure_needs(workspace: Path, fuse: Any) -> None:
    found = again(record(workspace, tiny_run(loss=fuse)), epochs=1)
    assert found.same and found.stopped and "It was stopped before epoch 2, in which it had failed" in summary(found)


def test_an_unfinished_run_without_an_epoch_is_refused(workspace: Path) -> None:
    folder = record(workspace, tiny_run(epochs=1))
    shorten(folder, 0)
    (folder.path / "result.json").unlink()
    with pytest.raises(InputError, match="has no finished epoch to hold a replay against"):
        again(folder)


def call(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["replay", *argv])
    return int(end.value.code or 0)


def test_the_exit_code_tells_how_it_went(
    workspace: Path, fuse: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("marginlab.replay.find_data", lambda root, fingerprint: PACKED)
    where = ("--device", "cpu", "--workspace", str(workspace))
    name = record(workspace, tiny_run(epochs=1)).path.name
    burnt = record(workspace, tiny_run(loss=fuse), "trial-0001-f0-def").path
    assert call(name, *where) == 0
    out = capsys.readouterr().out
    assert "epoch 1: val/map recorded" in out and "The same numbers" in out and "Next: " in out
    assert call(burnt.name, *where) == 0
    out = capsys.readouterr().out
    assert "in burn: raise ValueError" in out and "Next: mend the lines above" in out
    assert "It failed again in epoch 2: ValueError: the fuse has burnt" in " ".join(out.split())
    edit_json(burnt / "result.json", reason="ValueError: another")
    assert call(burnt.name, *where) == 1
    assert "ValueError: another." in " ".join(capsys.readouterr().out.split())
    for wrong in (
        ["nothing"],
        [name, "--out", "x"],
        [name, "--profile", "--epochs", "1"],
        [name, "--device", "abacus"],
    ):
        assert call(*where, *wrong) == 2, wrong
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "There is no device 'abacus' here" in said.err
