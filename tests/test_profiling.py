"""Where the time of a run goes: what is recorded, what a trace holds, and that naming steps leaves training as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marginlab import profiling
from marginlab.cli import main
from marginlab.clock import STEPS, Clock, listening
from marginlab.data.sampler import batches
from marginlab.profiling import SKIP, Operator, Profile, profile, sentences
from marginlab.runs import RunFolder
from marginlab.training import fit
from marginlab.values import InputError
from tests.tiny import Keep, timeless, tiny_data, tiny_run

PACKED: Any = SimpleNamespace(fold=lambda index: tiny_data())
CPU = torch.device("cpu")
BATCHES = 6  # of which the data's epochs have two each


@pytest.fixture(autouse=True)
def few_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(profiling, "RECORD", BATCHES)
    yield
    torch.set_num_threads(before)


def folder(path: Path, **training: Any) -> RunFolder:
    return RunFolder.create(path / "studies" / "s" / "runs" / "run-1", tiny_run(**training), {"kind": "trial"})


def events(trace: Path) -> list[dict[str, Any]]:
    return list(json.loads(trace.read_text())["traceEvents"])


def test_batches_after_the_first_two_and_an_evaluation_are_recorded(tmp_path: Path) -> None:
    run = folder(tmp_path)
    found = profile(run, PACKED, device="cpu")
    assert (found.recorded, found.batch_size, found.device) == (BATCHES, 32, "cpu")
    assert found.per_epoch == len(batches(tiny_data().train.label, seed=1, epoch=1, batch_size=32, per_identity=4)) == 2
    assert found.trace == run.path / "profile" / "trace.json"
    seen = events(found.trace)
    names = [e["name"] for e in seen if e.get("cat") == "user_annotation" and e["name"] in STEPS]
    assert [names.count(s) for s in STEPS[:-1]] == [BATCHES] * 5 and names.count("evaluation") == BATCHES // 2
    first = min((e for e in seen if e.get("name") in STEPS), key=lambda e: e["ts"])
    assert first["name"] == "data"
    assert any(e["name"] == "aten::convolution" for e in seen if e.get("cat") == "cpu_op")


def test_an_epoch_of_steps_is_worked_out_from_what_was_recorded(tmp_path: Path) -> None:
    found = profile(folder(tmp_path), PACKED, device="cpu")
    assert set(found.steps) == set(STEPS) and all(s > 0 for s in found.steps.values())
    assert list(found.steps.values()) == sorted(found.steps.values(), reverse=True)
    seen = events(found.trace)
    for name in STEPS[:-1]:  # the clock ticks inside the trace's ranges
        in_trace = sum(e["dur"] for e in seen if e.get("cat") == "user_annotation" and e["name"] == name) / 1e6
        assert 0 < found.steps[name] <= 1.01 * in_trace / BATCHES * found.per_epoch, name
    assert len(found.operators) == 5 and 0.2 < sum(o.share for o in found.operators) <= 1
    assert not {o.name for o in found.operators} & set(STEPS)
    assert all(o.name.partition("::")[0] in ("aten", "autograd", "torch") or o.calls > 0 for o in found.operators)


def test_a_long_epoch_is_cut_short_and_evaluated_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "RECORD", 3)
    found = profile(folder(tmp_path, batch_size=8), PACKED, device="cpu", out=tmp_path / "out")
    assert (found.recorded, found.per_epoch) == (3, 8)
    names = [e["name"] for e in events(tmp_path / "out" / "trace.json") if e.get("name") in STEPS]
    assert names.count("data") == 3 and names.count("evaluation") == 1 and found.steps["evaluation"] > 0


def test_slow_batches_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "PATIENCE_S", 0.0)
    assert profile(folder(tmp_path), PACKED, device="cpu").recorded == 1


def test_what_is_no_folder_and_what_fails_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file: name a folder for the trace"):
        profile(folder(tmp_path), PACKED, device="cpu", out=tmp_path / "file")
    failing = folder(tmp_path / "other", lr=1e30, batch_size=64)  # an epoch of one batch
    with pytest.raises(
        InputError, match=r"run-1 failed before its batch 3 ended \(TrainingFailed: The embeddings were not finite"
    ):
        profile(failing, PACKED, device="cpu")
    assert not (failing.path / "profile").exists()


def test_what_a_run_did_before_it_failed_is_shown(tmp_path: Path) -> None:
    found = profile(folder(tmp_path, lr=1e30, batch_size=16), PACKED, device="cpu")
    assert found.recorded == 4 - SKIP and found.failed.startswith("TrainingFailed: The loss was nan in epoch 1")
    assert set(found.steps) == set(STEPS[:-1])
    said = sentences(found)
    assert (
        said[1].startswith("An epoch of 4 batches takes") and said[-1] == f"After that the run failed: {found.failed}"
    )


def test_listening_changes_no_number() -> None:
    heard: list[str] = []
    clocks = set()

    class Listener:
        def __init__(self, clock: Clock, name: str) -> None:
            clocks.add(clock)
            heard.append(name)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    plain, listened = Keep(stop=1), Keep(stop=1)
    fit(tiny_run(), tiny_data(), plain, device=CPU)
    with listening(Listener):
        fit(tiny_run(), tiny_data(), listened, device=CPU)
    fit(tiny_run(), tiny_data(), Keep(stop=0), device=CPU)  # nobody listens any more
    assert [timeless(r) for r in plain.rows] == [timeless(r) for r in listened.rows]
    assert heard == ["evaluation", *2 * STEPS[:-1], "evaluation"] and len(clocks) == 1


def test_a_profile_in_words() -> None:
    steps = {"backward": 6.0, "forward": 3.0, "evaluation": 1.0}
    lines = sentences(Profile("cpu", 32, 20, 10, steps, [Operator("aten::mm", 0.375, 4.0)], Path("t")))
    assert lines[:3] == [
        f"20 batches of 32 images were recorded on cpu, after {SKIP} that were not: 900 ms a batch, 36 images/s.",
        "An epoch of 10 batches and an evaluation takes about 10.0 s, most of it in backward (60%) and forward (30%):",
        "  backward      6.000 s   60%",
    ]
    assert lines[-1].split() == ["aten::mm", "38%,", "4", "calls", "a", "batch"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("marginlab.replay.find_data", lambda root, fingerprint: PACKED)
    folder(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["replay", "run-1", "--profile", "--out", str(tmp_path / "out"), "--workspace", str(tmp_path)])
    assert not end.value.code
    out = capsys.readouterr().out
    assert "images/s" in out and "most expensive operators" in out and "perfetto" in out
    assert (tmp_path / "out" / "trace.json").exists()
