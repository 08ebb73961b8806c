"""One recorded run trained again, outside Ray, and held against what was recorded: the same numbers, or where they part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from marginlab.data.packed import PackedDataset
from marginlab.files import read_json
from marginlab.runs import OBJECTIVE, RunFolder
from marginlab.training import State, fit
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
            f"{name!r} names {what} in {workspace}: give a run's folder, its name or the beginning of its id."
        )
    return RunFolder.open(found[0])


def find_data(workspace: Path, fingerprint: str) -> PackedDataset:
    """The packed dataset of a workspace with this fingerprint."""
    for info in sorted(workspace.glob("data/*/dataset.json")):
        if read_json(info)["fingerprint"] == fingerprint:
            return PackedDataset.open(info.parent)
    raise InputError(f"{workspace} has no packed dataset {fingerprint}: prepare it there first.")


def replay(
    folder: RunFolder,
    data: PackedDataset,
    *,
    epochs: int | None = None,
    device: str | None = None,
    tell: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train the run from its seed again and hold each epoch against the recorded one, the untrained network (epoch 0) first.

    Args:
        epochs: stop after as many; by default after the last one recorded.
        tell: called with each epoch as it ends.
    """
    recorded = {r["epoch"]: r for r in folder.epochs()}
    if not recorded:
        raise InputError(f"{folder.path} has no finished epoch to hold a replay against.")
    last: int = max(recorded) if epochs is None else min(epochs, max(recorded))
    done: list[Epoch] = []

    def report(epoch: int, metrics: dict[str, float], state: State) -> bool:
        done.append(_compare(epoch, recorded[epoch], metrics))
        tell(done[-1])
        return epoch < last

    torch.set_num_threads(1)  # as in a worker: other numbers of threads add up in another order
    fit(folder.run, data.fold(folder.run.fold), report, device=device)
    return done


def _compare(epoch: int, row: dict[str, Any], metrics: dict[str, float]) -> Epoch:
    keys = [k for k in row if k not in ("epoch", "time") and not k.startswith("time/")]
    apart = {k: abs(row[k] - metrics.get(k, float("inf"))) for k in keys if row[k] != metrics.get(k)}
    return Epoch(epoch, row, metrics, apart)


def summary(epochs: list[Epoch]) -> str:
    """One sentence: the same, or where they part first and by how much in the objective."""
    parted = [e for e in epochs if not e.same]
    if not parted:
        return f"The same numbers, to the last bit, in all {len(epochs)} epochs (the untrained network included)."
    first = parted[0]
    metric, most = max(first.apart.items(), key=lambda item: item[1])
    objective = max(e.apart.get(OBJECTIVE, 0.0) for e in parted)
    return (
        f"They part in epoch {first.epoch}, most in {metric} (by {most:.2g}); {OBJECTIVE} differs by at most {objective:.2g}. "
        "Another machine, another number of workers or another version of torch adds up in another order."
    )
