"""A Ray Train worker group that takes a list of runs and trains them one after another."""

from __future__ import annotations

import math
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2.api.exceptions import ControllerError

from marginlab import bucket, distributed, faults, stopping
from marginlab.cluster.device import of_device, require
from marginlab.cluster.leaving import looking, nodes_of_group
from marginlab.cluster.overseer import Overseer
from marginlab.cluster.storage import storage_of
from marginlab.cluster.watched import watched
from marginlab.data.packed import WITNESS
from marginlab.executing import Decide, execute, never
from marginlab.files import passes, patiently, write_text
from marginlab.plan import OPENS_TEST
from marginlab.pulse import PULSE
from marginlab.runs import ATTEMPTS, Recorder, RunFolder, Superseded
from marginlab.stopping import Stopped
from marginlab.study import Resources

# The last resort: the ranks' own watch (watched.py) ends a group much sooner, and says why.
COLLECTIVE_TIMEOUT_S = 1800


def train_group(
    folders: list[str], packed: dict[str, str], resources: Resources, gpus: float, storage: Path, ask: dict[str, Any]
) -> None:
    """Train the runs of these folders in one worker group; returns when all have ended.

    A lost worker restarts the group, which passes over the finished runs and goes on at the run and epoch it lost. Ray Train does
    that where the group is at work. It does not where a worker is lost at some moments of the group's start, or where the process
    that directs the group is: then it is begun anew here.

    Args:
        folders: run folders, in order.
        packed: packed dataset folder by dataset name.
        ask: how ranks decide: ``{"session": ..., "study": folder, "registrar": name, "token": ..., ...}``.
    """
    others = 0
    for left in reversed(range(restarts(folders))):
        try:
            return _train_group(folders, packed, resources, gpus, storage, ask)
        except (RayActorError, OutOfMemoryError, ControllerError) as e:  # the second: by Ray's memory monitor
            starting, cause = isinstance(e, ControllerError), getattr(e, "controller_failure", e)
            if isinstance(cause, Stopped):
                return
            # Anything else may be the death of another rank too, or what no new start mends.
            others += not isinstance(cause, RayActorError | OutOfMemoryError)
            if not (left and others <= ATTEMPTS and isinstance(cause, RayError) and ray.is_initialized()):
                raise
        last = (str(cause).strip() or type(cause).__name__).splitlines()[-1]
        why = f"could not start ({last})" if starting else "lost its controller"
        faults.note(Path(ask["study"]), f"A worker group {why}: it was begun anew.")


def _train_group(
    folders: list[str], packed: dict[str, str], resources: Resources, gpus: float, storage: Path, ask: dict[str, Any]
) -> None:
    config = RunConfig(
        name=f"group-{uuid.uuid4().hex[:8]}",  # never resumed by Train: the run folders are the truth
        **storage_of(storage),
        failure_config=FailureConfig(max_failures=restarts(folders)),
        checkpoint_config=CheckpointConfig(num_to_keep=1),
        logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
    )
    # Makes Train's own folder: a disk that cannot be written is waited for.
    patiently(lambda: config.storage_context)  # type: ignore[attr-defined]
    trainer = _Trainer(
        _watched,
        train_loop_config={
            "folders": folders,
            "packed": packed,
            "input": resources.input(),
            "stalled_s": resources.stalled_s,
            **ask,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": resources.cpus, **({"GPU": gpus} if gpus else {})},
        ),
        torch_config=TorchConfig(timeout_s=max(COLLECTIVE_TIMEOUT_S, 2 * int(resources.stalled_s))),
        run_config=config,
        overseer=Overseer(Path(ask["study"]), resources.stalled_s),
    )
    trainer.fit()


class _Trainer(TorchTrainer):
    """Ray Train's, with an :class:`Overseer` and without the actor for Ray Datasets that it starts with every group, also where there
    are none: that would be one process of six, with 200 MB."""

    def __init__(self, *args: Any, overseer: Overseer, **kwargs: Any) -> None:
        self._overseer = overseer
        super().__init__(*args, **kwargs)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # mypy takes it for the Trainer of before
        return [*(c for c in callbacks if not isinstance(c, DatasetsCallback)), self._overseer]


def restarts(folders: list[str]) -> int:
    """How often the training of these runs may be begun anew, whatever the reason: by then one of them has failed (``run_one``)."""
    epochs = sum(RunFolder.open(Path(f)).run.training.epochs for f in folders)
    return (ATTEMPTS + 1) * (epochs + len(folders))


def _watched(config: dict[str, Any]) -> None:
    """On every rank of the group."""
    me = get_context()
    with distributed.as_rank(me.get_world_rank(), me.get_world_size()), watched(config):
        _worker(config)
        distributed.barrier()  # until rank 0 has written its last word, the others are there to be heard


def _worker(config: dict[str, Any]) -> None:
    """On every rank of the group."""
    device, nodes = get_device(), nodes_of_group()
    for index, path in enumerate(config["folders"]):
        try:
            with looking(nodes) as leaving:
                result = run_one(Path(path), config["packed"], decider(config, index), config, device, leaving)
        except Stopped:  # on every rank alike
            break
        # The folds of one trial: when the trial ends with one of them, the others are not begun.
        if "registrar" in config and not distributed.broadcast_flag(bool(result and result["state"] == "complete")):
            break
        if device.type == "cuda":
            torch.cuda.empty_cache()


def run_one(
    path: Path,
    packed: Mapping[str, str],
    decide: Decide,
    ask: dict[str, Any],
    device: torch.device,
    leaving: Callable[[], bool] = never,
) -> dict[str, Any] | None:
    """``execute``, with a run's own failure kept to that run.

    What the platform does to a run (a full disk, a lost registrar) is not the run's failure: it goes up, and the process
    or group is started again. So does what a GPU says that is in disorder, for a process has to be new to use it again; and, with
    several ranks, any other exception, because ranks that fail differently would wait for each other. A run that was started too
    often without getting further is marked as failed.

    Args:
        packed: packed dataset folder by dataset name.

    Raises:
        DeviceFails: before the run was begun.
    """
    study = Path(ask["study"])
    require(device)
    with _at_hand(path, study, packed) as (folder, data):
        if folder.result() is None and distributed.rank() == 0 and folder.begin_attempt(ask["session"]) > ATTEMPTS:
            Recorder(folder).finish("failed", f"It ended its processes {ATTEMPTS} times{folder.last_error()}.")
        distributed.barrier()
        try:
            return execute(
                path,
                data,
                decide,
                open_test=folder.labels["kind"] in OPENS_TEST,
                device=device,
                stop=lambda: stopping.asked(study),
                leaving=leaving,
                **ask.get("input", {}),
            )
        except (Stopped, Superseded):
            raise
        except Exception as e:
            with suppress(OSError):
                write_text(path / "error.txt", traceback.format_exc(), patient=False)
            if distributed.world() > 1 or isinstance(e, RayError) or passes(e) or of_device(e):
                raise
            return Recorder(folder).finish("failed", f"{type(e).__name__}: {e}")


@contextmanager
def _at_hand(path: Path, study: Path, packed: Mapping[str, str]) -> Iterator[tuple[RunFolder, Path]]:
    """A run's folder and its packed dataset, which this machine may have to fetch first. Rank 0 alone writes to the former.

    Both are there before a run is given out: where they are not, a host's shared storage is not mounted yet.
    """

    def bring() -> tuple[RunFolder, Path]:
        bucket.bring(study / "study.json")
        bucket.fetch(study / "code")
        if distributed.rank() == 0:
            bucket.fetch(path, exact=True)
        else:
            bucket.bring(path / "run.json")
        folder = RunFolder.open(path)
        data = Path(packed[folder.run.dataset])
        bucket.fetch_whole(data, WITNESS)
        return folder, data

    with bucket.alone(path) if distributed.rank() == 0 else nullcontext():
        found = patiently(bring, lambda e: passes(e) or isinstance(e, FileNotFoundError))
        distributed.barrier()
        yield found


def decider(config: dict[str, Any], index: int) -> Decide:
    """How rank 0 asks whether to go on with the ``index``-th run: confirmation always does, a trial asks the registrar."""
    name = config.get("registrar")
    if name is None:
        return lambda epoch, row: True
    from marginlab.cluster import registrar

    actor, token, objective = registrar.find(name), config["token"], config["objective"]
    finals: list[float] = []  # of the folds before this one

    def decide(epoch: int, row: dict[str, Any]) -> bool:
        if not finals:
            finals.extend(_last(Path(f), objective) for f in config["folders"][:index])
        value = (sum(finals) + float(row.get(objective, math.nan))) / (index + 1)
        with PULSE.alone():
            return bool(ray.get(actor.report.remote(token, index * config["max_epochs"] + epoch, value)))

    return decide


def _last(path: Path, objective: str) -> float:
    return float(RunFolder.open(path).epochs()[-1][objective])
