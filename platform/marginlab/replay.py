"""One recorded run trained again, outside Ray, and held against what was recorded: the same numbers, or where they part.

A run that failed is trained up to the epoch that failed, to see whether it fails again.
"""

from __future__ import annotations

import json
import re
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from marginlab import bucket
from marginlab.data.packed import WITNESS, PackedDataset
from marginlab.files import read_json
from marginlab.runs import OBJECTIVE, RunFolder
from marginlab.training import State, TrainingFailed, fit
from marginlab.values import InputError


@dataclass(frozen=True)
class Epoch:
    """An epoch as recorded and as replayed."""

    epoch: int
    recorded: dict[str, Any]
    replayed: dict[str, float]
    apart: dict[str, float] = field(default_factory=dict)  # metric -> absolute difference, where there is one

    @property
    def same(self) -> bool:
        return not self.apart


@dataclass(frozen=True)
class Failure:
    """How a run failed."""

    epoch: int  # that it failed in
    sentence: str  # as ``result.json`` has it
    lines: tuple[str, ...] = ()  # where in the user's own files, the innermost last

    def same(self, other: Failure) -> bool:
        """In the same epoch, with the same sentence. One may quote the other; addresses of objects are no difference."""
        mine, theirs = (re.sub(r"0x[0-9a-f]+", "0x", f.sentence) for f in (self, other))
        return self.epoch == other.epoch and (mine in theirs or theirs in mine)


@dataclass(frozen=True)
class Replay:
    """A run as replayed, beside what was recorded of it."""

    epochs: list[Epoch]  # those that both have
    recorded: Failure | None = None
    failed: Failure | None = None
    went_on: float | None = None  # the objective after the epoch that had failed, where it did not fail this time
    stopped: bool = False  # before the epoch that had failed, because no more epochs were asked for

    @property
    def same(self) -> bool:
        """The same numbers and, where it was gone so far, the same failure."""
        if not all(e.same for e in self.epochs):
            return False
        if self.recorded is None or self.failed is None:
            return self.failed is None and (self.recorded is None or self.stopped)
        return self.failed.same(self.recorded)


def find_run(workspace: Path, name: str) -> RunFolder:
    """A run by its folder, by the folder's name, or by the beginning of its id."""
    path = Path(name)
    if (path / "run.json").exists():
        return RunFolder.open(path)
    records = sorted(workspace.glob("studies/*/runs/**/run.json"))
    found = [p.parent for p in records if p.parent.name == name or read_json(p)["id"].startswith(name)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs, among them {found[0]} and {found[1]}"
        raise InputError(
            f"{name!r} names {what} in {bucket.shown(workspace)}: give a run's folder, its name or the beginning of its id."
        )
    return RunFolder.open(found[0])


def find_data(workspace: Path, fingerprint: str) -> PackedDataset:
    """The packed dataset of a workspace with this fingerprint."""
    for name, content in bucket.witnesses(workspace / "data", WITNESS).items():
        if json.loads(content).get("fingerprint") == fingerprint:
            bucket.fetch_whole(workspace / "data" / name, WITNESS)
    for info in sorted(workspace.glob("data/*/dataset.json")):
        if read_json(info)["fingerprint"] == fingerprint:
            return PackedDataset.open(info.parent)
    raise InputError(f"{bucket.shown(workspace)} has no packed dataset {fingerprint}: prepare it there first.")


def replay(
    folder: RunFolder,
    data: PackedDataset,
    *,
    epochs: int | None = None,
    device: str | None = None,
    tell: Callable[[Epoch], None] = lambda epoch: None,
) -> Replay:
    """Train the run from its seed again and hold each epoch against the recorded one, the untrained network (epoch 0) first.

    Args:
        epochs: stop after as many; by default after the last one recorded, of a failed run after the one that failed.
        tell: called with each epoch that was recorded, as it ends.
    """
    recorded = {r["epoch"]: r for r in folder.epochs()}
    result = folder.result() or {}
    failure = Failure(max(recorded, default=-1) + 1, result["reason"]) if result.get("state") == "failed" else None
    if not recorded and failure is None:
        raise InputError(f"{folder.path} has no finished epoch to hold a replay against.")
    last = failure.epoch if failure else max(recorded)
    last = last if epochs is None else min(epochs, last)
    done: list[Epoch] = []
    went_on: list[float] = []

    def report(epoch: int, metrics: dict[str, float], state: State) -> bool:
        if epoch not in recorded:
            went_on.append(metrics.get(OBJECTIVE, float("nan")))
            return False
        done.append(_compare(epoch, recorded[epoch], metrics))
        tell(done[-1])
        return epoch < last

    torch.set_num_threads(1)  # as in a worker: other numbers of threads add up in another order
    fold = data.fold(folder.run.fold)
    chunk = result.get("trained_on", {}).get("chunk")  # adds up in its own order too
    failed = None
    try:
        fit(folder.run, fold, report, device=device, chunk=chunk)
    except Exception as e:  # a user's loss may raise anything
        failed = Failure(len(done), _sentence(e), _own_lines(e))
    stopped = failure is not None and last < failure.epoch
    return Replay(done, failure, failed, went_on[0] if went_on else None, stopped)


def _sentence(e: Exception) -> str:
    """As a launcher records it."""
    return str(e) if isinstance(e, TrainingFailed) else f"{type(e).__name__}: {e}"


def _own_lines(e: Exception) -> tuple[str, ...]:
    """The last lines of a traceback that are in neither MarginLab nor a library, with their code."""
    paths = sysconfig.get_paths()
    libraries = [Path(__file__).parent, *(Path(paths[k]) for k in ("stdlib", "platstdlib", "purelib", "platlib"))]
    frames = [
        f
        for f in traceback.extract_tb(e.__traceback__)
        if not f.filename.startswith("<") and not any(Path(f.filename).is_relative_to(p) for p in libraries)
    ]
    return tuple(f"{f.filename}, line {f.lineno}, in {f.name}: {f.line}" for f in frames[-3:])


def _compare(epoch: int, row: dict[str, Any], metrics: dict[str, float]) -> Epoch:
    keys = [k for k in row if k not in ("epoch", "time") and not k.startswith("time/")]
    apart = {k: abs(row[k] - metrics.get(k, float("inf"))) for k in keys if row[k] != metrics.get(k)}
    return Epoch(epoch, row, metrics, apart)


def summary(replay: Replay) -> str:
    """In sentences: the same, or where the numbers part first and by how much in the objective; and how a failure went."""
    parts = [_numbers(replay.epochs)] if replay.epochs else []
    return " ".join(parts + ([_failure(replay)] if replay.recorded or replay.failed else []))


def _numbers(epochs: list[Epoch]) -> str:
    parted = [e for e in epochs if not e.same]
    if not parted and len(epochs) == 1:
        return "The untrained network has the same numbers, to the last bit."
    if not parted:
        return f"The same numbers, to the last bit, in all {len(epochs)} epochs (the untrained network included)."
    first = parted[0]
    metric, most = max(first.apart.items(), key=lambda item: item[1])
    objective = max(e.apart.get(OBJECTIVE, 0.0) for e in parted)
    return (
        f"They part in epoch {first.epoch}, most in {metric} (by {most:.2g}); {OBJECTIVE} differs by at most {objective:.2g}. "
        "Another machine, another number of workers or another version of torch adds up in another order."
    )


def _failure(replay: Replay) -> str:
    was, now = replay.recorded, replay.failed
    if was is None:
        assert now is not None
        return f"It failed in epoch {now.epoch}, which was recorded as having ended well: {_stop(now.sentence)}"
    if now is None and replay.stopped:
        return f"It was stopped before epoch {was.epoch}, in which it had failed: {_stop(was.sentence)}"
    if now is None and replay.went_on is None:
        return f"It did not fail this time: its epochs have all ended. It had failed after them: {_stop(was.sentence)}"
    if now is None:
        return (
            f"It did not fail this time: epoch {was.epoch} ended with {OBJECTIVE} {replay.went_on:.6f}. "
            f"It had failed with: {_stop(was.sentence)}"
        )
    if now.same(was):
        return f"It failed again in epoch {now.epoch}: {_stop(now.sentence)}"
    return (
        f"It failed in epoch {now.epoch}: {_stop(now.sentence)} "
        f"It had failed otherwise, in epoch {was.epoch}: {_stop(was.sentence)}"
    )


def _stop(sentence: str) -> str:
    """An exception's message may lack its full stop."""
    return sentence if sentence.endswith((".", "!", "?")) else sentence + "."
