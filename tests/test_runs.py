import dataclasses
import json
import os
from pathlib import Path

import polars as pl
import pytest
import torch

from marginlab import runs
from marginlab.files import append_line, aside, read_lines, sweep
from marginlab.runs import Recorder, RunFolder, Superseded, read_embeddings, write_embeddings
from marginlab.training import fit
from marginlab.values import InputError
from tests.tiny import Keep, timeless, tiny_data, tiny_run


def record(path: Path, stop: int | None = None, resume: bool = False) -> RunFolder:
    folder = RunFolder.create(path, tiny_run(), {"kind": "trial"})
    recorder = Recorder(folder)

    def report(epoch, metrics, state):
        recorder.epoch(epoch, metrics, state)
        return epoch != stop

    fit(folder.run, tiny_data(), report, resume=folder.checkpoint(), device="cpu")
    if stop is None:
        recorder.finish("complete")
    return folder


def test_a_folder_holds_what_fit_reported(tmp_path: Path) -> None:
    seen = Keep()
    fit(tiny_run(), tiny_data(), seen, device="cpu")
    folder = RunFolder.open(record(tmp_path / "run").path)
    assert folder.run == tiny_run() and folder.labels == {"kind": "trial"}
    assert [timeless(r) for r in folder.epochs()] == [timeless(r) for r in seen.rows]
    best = max(seen.rows, key=lambda r: (r["val/map"], -r["epoch"]))
    result = folder.result()
    assert result["state"] == "complete" and result["epochs"] == 3 and result["last"] == seen.rows[-1]["val/map"]
    assert result["best"] == best["val/map"] and result["best_epoch"] == best["epoch"]
    weights, epoch = folder.best_weights()
    assert epoch == best["epoch"]
    assert all(torch.equal(v, seen.states[epoch][f"network/{k}"]) for k, v in weights.items())
    frame = folder.embeddings("validation")
    assert read_embeddings(frame).shape == (len(tiny_data().validation), 16) and frame.columns == [
        "row",
        "label",
        "months",
        "role",
        "embedding",
    ]
    assert not list((tmp_path / "run").glob(".*"))  # nothing half-written is left


def test_whoever_was_given_up_writes_no_more(tmp_path: Path) -> None:
    """A host that was cut off trains on while another one has its run: what the first one does then is for nothing."""
    folder = RunFolder.create(tmp_path / "run", tiny_run(), {"kind": "trial"})
    first, taken = Recorder(folder), []

    def report(epoch, metrics, state):
        first.epoch(epoch, metrics, state)
        if epoch == 1:
            taken.append(Recorder(folder))
        return True

    with pytest.raises(Superseded, match=rf"run is written by process {os.getpid()} on "):
        fit(folder.run, tiny_data(), report, device="cpu")
    assert [r["epoch"] for r in folder.epochs()] == [0, 1] == [r["epoch"] for r in taken[0].rows]
    fit(folder.run, tiny_data(), lambda *a: taken[0].epoch(*a) or True, resume=folder.checkpoint(), device="cpu")
    assert [r["epoch"] for r in folder.epochs()] == [0, 1, 2, 3]


def test_embeddings_say_whose_they_are_where_it_is_known(tmp_path: Path) -> None:
    subset = tiny_data().validation
    points = torch.ones(len(subset), 3)
    write_embeddings(tmp_path / "without.parquet", points, subset)
    write_embeddings(tmp_path / "with.parquet", points, dataclasses.replace(subset, subject=subset.label // 2))
    without, known = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("without", "with"))
    assert known.columns == ["row", "label", "subject", "months", "role", "embedding"]
    assert known.drop("subject").equals(without) and known["subject"].to_list() == (subset.label // 2).tolist()


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_interrupted_folder_ends_as_an_undisturbed_one(tmp_path: Path, epoch: int) -> None:
    whole = record(tmp_path / "whole")
    part = record(tmp_path / "part", stop=epoch)
    # Killed between the checkpoint and the row, and in the middle of writing a row.
    lines = (part.path / "epochs.jsonl").read_text().splitlines(keepends=True)
    (part.path / "epochs.jsonl").write_text("".join(lines[:-1]) + lines[-1][:25])
    record(tmp_path / "part")
    assert [timeless(r) for r in part.epochs()] == [timeless(r) for r in whole.epochs()]
    assert (part.path / "best.safetensors").read_bytes() == (whole.path / "best.safetensors").read_bytes()
    assert part.embeddings("validation").equals(whole.embeddings("validation"))
    last = [f.checkpoint() for f in (part, whole)]
    assert all(torch.equal(last[0][k], last[1][k]) for k in last[1])


class _Killed(BaseException):
    pass


# What an epoch that is the best so far does to its folder, in this order; ``killed`` dies as it begins one of them.
STEPS = (
    "save next.safetensors",
    "embeddings",
    "save last.safetensors",
    "rename next.parquet",
    "rename next.safetensors",
    "row",
)


def killed(path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[bool] = []

    def dies(name: str, what):
        def do(path: Path, *args, **kwargs):
            label = {"_save": f"save {path.name}", "rename": f"rename {path.name}"}.get(
                name, "row" if name == "append_line" else "embeddings"
            )
            if label == step and armed:
                raise _Killed
            return what(path, *args, **kwargs)

        return do

    folder = RunFolder.create(path, tiny_run(), {"kind": "trial"})
    with monkeypatch.context() as patch:
        for name in ("_save", "rename", "append_line", "write_embeddings"):
            patch.setattr(runs, name, dies(name, getattr(runs, name)))
        recorder = Recorder(folder)

        def report(epoch, metrics, state):
            if epoch == 2:
                metrics["val/map"] = 1.0  # the best, whatever comes later
                armed.append(True)
            recorder.epoch(epoch, metrics, state)
            return True

        with pytest.raises(_Killed):
            fit(folder.run, tiny_data(), report, device="cpu")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("again", [1.0, 0.0], ids=["as good again", "worse again"])
def test_the_best_network_is_one_of_an_epoch_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, again: float
) -> None:
    """Killed within the best epoch, which need not be as good when it is trained again: sums round differently on GPUs."""
    killed(tmp_path / "run", step, monkeypatch)
    folder, states = RunFolder.open(tmp_path / "run"), {}
    recorder = Recorder(folder)
    counts = STEPS.index(step) > STEPS.index("save last.safetensors")  # it is not trained again
    assert recorder.rows[-1]["epoch"] == (2 if counts else 1)

    def report(epoch, metrics, state):
        metrics["val/map"] = again if epoch == 2 else 0.0
        states[epoch] = {k: v.clone() for k, v in state.weights().items()}, state.embeddings.clone()
        recorder.epoch(epoch, metrics, state)
        return True

    before = {1: (folder.best_weights()[0], read_embeddings(folder.embeddings("validation")))}
    fit(folder.run, tiny_data(), report, resume=folder.checkpoint(), device="cpu")
    result = recorder.finish("complete")
    weights, epoch = folder.best_weights()
    assert epoch == result["best_epoch"] == (2 if counts or again else recorder.best["epoch"])
    assert result["best"] == {r["epoch"]: r["val/map"] for r in folder.epochs()}[epoch]
    expected, embeddings = {**states, **({2: before[1]} if counts else {epoch: states.get(epoch, before[1])})}[epoch]
    assert all(torch.equal(v, expected[k]) for k, v in weights.items())
    assert torch.equal(read_embeddings(folder.embeddings("validation")), embeddings)
    assert not list(folder.path.glob("next.*"))


def test_rows_beyond_the_checkpoint_are_trained_again(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", stop=1)
    append_line(folder.path / "epochs.jsonl", {"epoch": 2, "val/map": 9.0})
    assert [r["epoch"] for r in Recorder(folder).rows] == [0, 1]
    assert [r["epoch"] for r in folder.epochs()] == [0, 1]


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, tiny_run(), {})
    with pytest.raises(InputError, match="holds the run"):
        RunFolder.create(tmp_path, tiny_run(seed=2), {})


def test_attempts_are_counted_between_finished_epochs(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, tiny_run(), {})
    assert [folder.begin_attempt("s") for _ in range(2)] == [1, 2]
    append_line(tmp_path / "epochs.jsonl", {"epoch": 0})  # the untrained network: nothing has been trained yet
    assert folder.begin_attempt("s") == 3
    assert folder.begin_attempt("t") == 1  # the study was stopped and begun again
    append_line(tmp_path / "epochs.jsonl", {"epoch": 1})
    assert folder.begin_attempt("t") == 1


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.json"
    with pytest.raises(RuntimeError), aside(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not path.exists() and list(path.parent.iterdir()) == []
    append_line(tmp_path / "lines", {"a": 1})
    with (tmp_path / "lines").open("a") as f:
        f.write('{"a": 2, "b"')
    append_line(tmp_path / "lines", {"a": 3})
    assert read_lines(tmp_path / "lines") == [{"a": 1}, {"a": 3}]
    assert json.loads((tmp_path / "lines").read_text().splitlines()[-1]) == {"a": 3}


def test_what_a_killed_process_was_writing_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "runs" / "a" / name for name in ("last.safetensors", ".hidden", "epochs.jsonl")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    half = [aside(kept[0]), aside(tmp_path / "runs" / "a" / "result.json")]
    written = [each.__enter__() for each in half]  # and killed: never left
    sweep(tmp_path / "runs")
    assert not any(path.exists() for path in written)
    assert sorted(tmp_path.rglob("*.*")) == sorted(kept)
