"""One run, recorded: what every launcher calls, inline or on all ranks of a worker group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from marginlab import distributed
from marginlab.data.packed import PackedDataset
from marginlab.networks import build_seeded
from marginlab.pulse import PULSE
from marginlab.retrieval import protocol_scores
from marginlab.runs import Between, Kept, Recorder, RunFolder, write_embeddings
from marginlab.simulated import Curves
from marginlab.stopping import Stopped
from marginlab.training import TrainingFailed, embed, fit

Decide = Callable[[int, dict[str, Any]], bool]  # (epoch, its row) -> go on?


def never() -> bool:
    return False


def execute(
    path: Path,
    packed: Path,
    decide: Decide,
    *,
    open_test: bool = False,
    device: torch.device | None = None,
    stop: Callable[[], bool] = never,
    leaving: Callable[[], bool] = never,
    cache: str = "auto",
    chunk: int | None = None,
    pace: float = 0.0,
) -> dict[str, Any] | None:
    """Train the run of a folder, or go on with it; a finished one is left as it is. All ranks call it together.

    Args:
        path: the run folder, made with ``RunFolder.create``.
        packed: the packed dataset's folder, or that of recorded curves: they are replayed, and there is no test split to open.
        decide: asked on rank 0 after every epoch from the first; a resumed run asks again for the epochs it has.
        open_test: embed and score the test split with the best network (``plan.OPENS_TEST`` alone).
        stop: asked on rank 0 before the first epoch and after every one: was the study asked to stop?
        leaving: asked on rank 0 between batches: will this machine be taken away? Then the run is kept within its epoch.
        cache, chunk: as ``fit`` has them.
        pace: as ``Curves.replay`` has it.

    Returns:
        The content of ``result.json`` on rank 0, ``None`` on the others.

    Raises:
        Stopped: on all ranks, between two epochs. The folder is as after any epoch, and a later call goes on from there.
    """
    folder = RunFolder.open(path)
    done = folder.result()
    if distributed.broadcast_flag(done is not None):
        return done
    dataset = Curves.open(packed) if Curves.there(packed) else PackedDataset.open(packed)
    dataset.require(folder.run.data)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on = {
        "device": "simulated" if isinstance(dataset, Curves) else device.type,
        "workers": distributed.world(),
        "threads": torch.get_num_threads(),
    }
    on |= {"chunk": chunk} if chunk is not None else {}
    # Only rank 0 writes the folder. It opens it first: opening mends what a kill left behind.
    recorder = Recorder(folder, on) if distributed.rank() == 0 else None
    stopped = recorder is not None and stop()
    if distributed.broadcast_flag(stopped):
        raise Stopped
    # It also reads the checkpoint for all: on shared storage another node may not see it yet.
    resume = distributed.broadcast_object(folder.checkpoint() if recorder else None)
    go_on = True
    if recorder:
        for row in recorder.rows:
            go_on = go_on and (row["epoch"] == 0 or decide(row["epoch"], row))

    def report(epoch: int, metrics: dict[str, float], state: Kept) -> bool:
        nonlocal go_on, stopped
        assert recorder is not None  # fit reports on rank 0 alone
        recorder.epoch(epoch, metrics, state)
        go_on = epoch == 0 or decide(epoch, metrics)
        stopped = go_on and epoch < folder.run.training.epochs and stop()
        return go_on and not stopped

    try:
        if distributed.broadcast_flag(go_on):
            if isinstance(dataset, Curves):
                dataset.replay(folder.run, folder.labels, report, resume, pace)
            else:
                data, between = dataset.fold(folder.run.fold), Between(path, leaving)
                fit(folder.run, data, report, resume=resume, device=device, cache=cache, chunk=chunk, between=between)
    except TrainingFailed as e:
        return recorder.finish("failed", str(e)) if recorder else None
    if distributed.broadcast_flag(stopped):
        raise Stopped
    go_on = distributed.broadcast_flag(go_on)
    scores = {} if isinstance(dataset, Curves) or not (open_test and go_on) else _open_test(folder, dataset, device)
    return recorder.finish("complete" if go_on else "pruned", metrics=scores) if recorder else None


def _open_test(folder: RunFolder, dataset: PackedDataset, device: torch.device) -> dict[str, float]:
    """Open the test split: embed it with the best network, keep the embeddings, score them."""
    run, subset = folder.run, dataset.test()
    network = build_seeded(run.training.network, dataset.channels, run.seed)
    # Read on rank 0 for all, as the checkpoint is.
    best = distributed.broadcast_object(folder.best_weights()[0] if distributed.rank() == 0 else None)
    assert best is not None
    network.load_state_dict(best)
    embeddings = embed(network.to(device), subset, run.training, dataset.mean, dataset.std, device)
    if distributed.rank() != 0:
        return {}
    write_embeddings(folder.path / "embeddings" / "test.parquet", embeddings, subset)
    with PULSE.alone():
        return {f"test/{k}": v for k, v in protocol_scores(embeddings, subset).items()}
