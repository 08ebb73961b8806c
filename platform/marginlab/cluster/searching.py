"""All searches of a study in one Tune experiment: the registrar decides, Tune runs, run folders remember."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.search import Searcher

from marginlab import bucket
from marginlab.cluster import registrar
from marginlab.cluster.machines import Machines
from marginlab.cluster.preflight import concurrency, gpus_per_worker, launcher
from marginlab.cluster.storage import storage_of
from marginlab.files import patiently
from marginlab.runs import ATTEMPTS, RunFolder
from marginlab.search import FINISHED, WAIT
from marginlab.stopping import Stopped
from marginlab.study import Search

# Tune would send the driver's AWS keys along with every trial, and Ray writes what is sent so into its logs. Nodes have their own.
ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
_failed = RayActorManager._actor_task_failed


def _task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
    """Where Ray's memory monitor ended a trial's process, Tune would end the search: it knows actors that died, and not this one."""
    if isinstance(exception, OutOfMemoryError):
        exception = RayActorError(error_msg=str(exception))
    _failed(self, tracked_actor_task, exception)


RayActorManager._actor_task_failed = _task_failed  # type: ignore[method-assign]


class RegistrarSearcher(Searcher):
    """Hands Tune the registrar's trials. Nothing is told through Tune: ranks report to the registrar themselves."""

    def __init__(self, actor: Any, session: str) -> None:
        super().__init__(metric="objective", mode="max")
        self.actor, self.session = actor, session

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        answer = ray.get(self.actor.ask.remote(f"{self.session}/{trial_id}"))
        if answer == FINISHED:
            return str(Searcher.FINISHED)
        return None if answer == WAIT else answer

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.actor.gone.remote(f"{self.session}/{trial_id}")

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # the storage is the truth: there is nothing to save

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("A study is resumed by running it again.")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles searchers at its checkpoints


def search(
    rules: Search,
    study_folder: Path,
    actor: Any,
    registrar_name: str,
    session: str,
    packed: dict[str, str],
    storage: Path,
    machines: Machines,
    trials: int,
) -> None:
    """Run trials until every search has spent its budget. ``trials``: the most there can be."""
    at_once = concurrency("Search", rules.resources, machines)
    gpus = gpus_per_worker(rules.resources, machines)
    shared = {
        "registrar": registrar_name,
        "packed": packed,
        "objective": rules.objective,
        "max_epochs": rules.max_epochs,
        "session": session,
        "study": str(study_folder),
        "input": rules.resources.input(),
        "device": "cuda" if gpus else "cpu",  # a process without a GPU of its own may still see one
    }
    if launcher(rules.resources, machines) == "inline":
        needs: dict[str, float] = {"CPU": rules.resources.cpus, **({"GPU": gpus} if gpus else {})}
        trainable = tune.with_resources(tune.with_parameters(_inline_trial, shared=shared), needs)
    else:
        nested = {"shared": shared, "resources": rules.resources, "gpus": gpus, "storage": storage}
        trainable = tune.with_resources(tune.with_parameters(_train_trial, **nested), registrar.HEAD)
    made = partial(
        tune.Tuner,
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=RegistrarSearcher(actor, session),
            num_samples=trials,
            max_concurrent_trials=min(at_once, rules.max_concurrent or at_once),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"search-{session}",
            **storage_of(storage),
            verbose=0,
            # Restarts of a lost actor; the run resumes from its folder, which counts them (RunFolder.begin_attempt).
            failure_config=tune.FailureConfig(max_failures=(ATTEMPTS + 1) * (rules.trial_epochs + 1)),
        ),
    )
    patiently(made).fit()  # it makes Tune's own folder


def _inline_trial(config: dict[str, Any], shared: dict[str, Any]) -> None:
    """In the trial's own, reused process."""
    from marginlab.cluster.device import DeviceFails
    from marginlab.cluster.group import decider, run_one
    from marginlab.cluster.leaving import looking, nodes_of_group

    ask = {**shared, **config}
    try:
        for index, path in enumerate(config["folders"]):
            with looking(nodes_of_group()) as leaving:
                result = run_one(
                    Path(path), ask["packed"], decider(ask, index), ask, torch.device(shared["device"]), leaving
                )
            if result is None or result["state"] != "complete":
                break
    except Stopped:
        return
    except (RayError, OSError, DeviceFails) as e:  # of the platform: run_one keeps a run's own
        _halt(ask, f"{type(e).__name__} on {os.uname().nodename}: {str(e).strip().splitlines()[-1]}")
        return
    _end(config, shared)


def _train_trial(config: dict[str, Any], shared: dict[str, Any], resources: Any, gpus: float, storage: Path) -> None:
    """In the trial's process on the head node, which only waits for its worker group."""
    from ray.train.v2.api.exceptions import TrainingFailedError

    from marginlab.cluster.group import train_group

    ask = {**shared, "token": config["token"]}
    try:
        train_group(config["folders"], shared["packed"], resources, gpus, storage, ask)
    except TrainingFailedError as e:  # not a run's own failure: that ends its run and not its group
        _halt(ask, str(e).strip().splitlines()[-1])
        return
    _end(config, shared)


def _halt(ask: dict[str, Any], reason: str) -> None:
    """What the platform could not do (write to a disk that stayed full) is not the trial's failure: the study stops."""
    ray.get(registrar.find(ask["registrar"]).halt.remote(ask["token"], reason))


def _end(config: dict[str, Any], shared: dict[str, Any]) -> None:
    """Tell the registrar how the trial ended, from its last run's own result."""
    for path in map(Path, config["folders"]):  # another machine may have written it
        patiently(partial(bucket.bring, path / "result.json"))
    results = [RunFolder.open(Path(p)).result() for p in config["folders"]]
    begun = [r for r in results if r is not None]
    if not begun or (begun[-1]["state"] == "complete" and len(begun) < len(results)):
        return  # stopped on the way; the registrar hears from Tune that the process is gone
    last, actor = begun[-1], registrar.find(shared["registrar"])
    ray.get(actor.tell.remote(config["token"], last["state"], last["reason"]))
    tune.report({"objective": last.get("last") or 0.0})
