"""The measurements of bench_overhead.py, each in a process of its own."""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

from marginlab.cluster import registrar
from marginlab.cluster.group import train_group
from marginlab.cluster.searching import search
from marginlab.cluster.session import machines, session
from marginlab.data.packed import PackedDataset
from marginlab.declaration import declare
from marginlab.hindrance import hindrance
from marginlab.plan import Plan
from marginlab.running import Telling, synced
from marginlab.runs import RunFolder
from marginlab.simulated import Curves
from marginlab.space import uniform
from marginlab.study import Arm, Dataset, Resources, Search, Study
from marginlab.tracking import Apart, Tracker
from marginlab.training import Run, Training, fit
from marginlab.workspace import Workspace

HERE = Path(__file__).resolve().parent
# Ray's processes find this module by it (marginlab.cluster.session).
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])

EPOCHS = 3
TRIALS, TURNS = 200, 4


def study(dataset: Dataset, training: Training, trials: int, **search_rules: Any) -> Study:
    """One search that prunes nothing."""
    arm = Arm("only", training, {"margin.epsilon": uniform(0.05, 0.6)})
    rules = {"epochs_budget": trials * EPOCHS, "max_epochs": EPOCHS, "pruner_startup_trials": 10**6, **search_rules}
    return Study("overhead", [dataset], [arm], Search(**rules))  # type: ignore[arg-type]


def fixed_margin() -> Training:
    from marginlab.margins import FixedMargin

    return Training(margin=FixedMargin())


@contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlb", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Here:
    """A study and what it is searched with, on the Ray that is here."""

    def __init__(self, root: Path, study: Study, source: PackedDataset | Curves, packed: Path) -> None:
        self.space, self.study, self.packed = Workspace.at(root), study, {source_name(study): str(packed)}
        self.folder = self.space.study(study.name)
        self.source = source
        self.tracking_s = 0.0  # CPU seconds of the process that keeps MLflow up to date

    def declare(self, study: Study) -> Plan:
        plan = Plan(study, {source_name(study): self.source.fingerprint}, ("oai",))
        declare(self.folder, plan)
        return plan

    def search(self, study: Study, name: str) -> float:
        """Search what is left of the budget, with MLflow kept up to date. The registrar's CPU seconds."""
        import ray

        plan = self.declare(study)
        actor = registrar.start(self.folder, name, name)
        ray.get(actor.over.remote())
        there = machines()
        most = study.search.epochs_budget
        with Apart(Tracker(self.space.root, self.folder)) as tracking:
            with Telling(
                lambda sentence: None, partial(synced, tracking, self.folder), partial(hindrance, self.folder)
            ):
                search(plan.study.search, self.folder, actor, name, name, self.packed, self.folder / "ray", there, most)
            tracking.do(Tracker.sync)
            self.tracking_s += tracking.do(used)
        spent: float = ray.get(actor.__ray_call__.remote(lambda self: time.process_time()))
        ray.kill(actor)
        return spent

    def runs(self) -> list[RunFolder]:
        """Ended trials, in the order in which they ended."""
        found = [RunFolder.open(p.parent) for p in self.folder.glob("runs/**/result.json")]
        return sorted(found, key=lambda f: f.result()["time"])  # type: ignore[index]


def used(tracker: Tracker) -> float:
    return time.process_time()


def source_name(study: Study) -> str:
    name: str = study.datasets[0].name
    return name


def fit_seconds(rows: list[dict[str, Any]]) -> float:
    own = ("time/checkpoint_s", "time/images_per_s")
    return sum(v for r in rows for k, v in r.items() if k.startswith("time/") and k.endswith("_s") and k not in own)


# -- inline -------------------------------------------------------------------------------------------------------------


def inline() -> dict[str, Any]:
    from marginlab.data.phantom import OaiPhantom
    from tests.cluster.studies import tiny

    dataset = Dataset("oai", phantom=OaiPhantom(subjects=40, size=36), size=36)
    training = dataclasses.replace(tiny, margin=fixed_margin().margin)
    each = TRIALS // TURNS
    with temporary() as root, session(cpus=2):
        packed = Workspace.at(root).prepare(dataset, lambda *_: None)
        rules = {"max_concurrent": 1}
        here = Here(root, study(dataset, training, TRIALS, **rules), packed, Workspace.at(root).packed(dataset))
        rival = Rival(root / "rival", training, packed.fingerprint, Workspace.at(root).packed(dataset))
        ours: list[float] = []
        theirs: list[float] = []
        single: list[float] = []
        for turn in range(TURNS):
            here.search(study(dataset, training, (turn + 1) * each, **rules), f"turn-{turn}")
            after = time.time()
            runs = here.runs()[turn * each :]
            ends = [r.result()["time"] for r in runs]  # type: ignore[index]
            spent = [fit_seconds(r.epochs()) for r in runs]
            ours.append((after - ends[0] - sum(spent[1:])) / (each - 1))
            single += [b - a - s for a, b, s in zip(ends, ends[1:], spent[1:], strict=False)]
            theirs.append(rival.turn(turn, each))
    x = np.arange(len(single))
    keep = (
        np.abs(np.array(single) - np.median(single))
        < 3 * np.median(np.abs(np.array(single) - np.median(single))) + 0.05
    )
    slope = float(np.polyfit(x[keep], np.array(single)[keep], 1)[0])
    return {
        "ours": ours,
        "theirs": theirs,
        "slope": slope,
        "epochs": EPOCHS,
        "trials": TRIALS,
        "limit": 0.15 + 0.025 * EPOCHS,
    }


class Rival:
    """The same training by Tune with Optuna's searcher and MLflow's callback, each as its documentation has it."""

    def __init__(self, root: Path, training: Training, fingerprint: str, packed: Path) -> None:
        root.mkdir()
        self.root, self.log = root, root / "ends.jsonl"
        self.config = {"training": training, "data": fingerprint, "packed": str(packed), "log": str(self.log)}

    def turn(self, turn: int, trials: int) -> float:
        from optuna.storages import RDBStorage
        from ray import tune
        from ray.air.integrations.mlflow import MLflowLoggerCallback
        from ray.tune.search.optuna import OptunaSearch

        before = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        searcher = OptunaSearch(
            {"epsilon": tune.uniform(0.05, 0.6)},
            metric="objective",
            mode="max",
            study_name="rival",
            storage=RDBStorage(f"sqlite:///{self.root / 'optuna.db'}"),
        )
        mlflow = MLflowLoggerCallback(tracking_uri=f"sqlite:///{self.root / 'mlflow.db'}", experiment_name="rival")
        tune.Tuner(
            tune.with_resources(tune.with_parameters(rival_trial, shared=self.config), {"CPU": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher, num_samples=trials, max_concurrent_trials=1, reuse_actors=True
            ),
            run_config=tune.RunConfig(name=f"rival-{turn}", storage_path=str(self.root), verbose=0, callbacks=[mlflow]),
        ).fit()
        after = time.time()
        rows = [json.loads(line) for line in self.log.read_text().splitlines()[before:]]
        return (after - rows[0]["end"] - sum(r["fit"] for r in rows[1:])) / (len(rows) - 1)


def rival_trial(config: dict[str, Any], shared: dict[str, Any]) -> None:
    import torch
    from ray import tune
    from safetensors.torch import save_file

    epsilon = config["epsilon"]
    margin = dataclasses.replace(shared["training"].margin, epsilon=epsilon)
    training = dataclasses.replace(shared["training"], margin=margin, epochs=EPOCHS)
    packed = PackedDataset.open(Path(shared["packed"]))
    rows: list[dict[str, Any]] = []

    def report(epoch: int, metrics: dict[str, float], state: Any) -> bool:
        rows.append(metrics)
        with tempfile.TemporaryDirectory() as folder:
            whole = {k: v.detach().clone().contiguous() for k, v in state.tensors().items()}
            save_file(whole, Path(folder) / "last.safetensors")
            tune.report({**metrics, "objective": metrics["val/map"]}, checkpoint=tune.Checkpoint.from_directory(folder))
        return True

    run = Run("oai", shared["data"], training, 0, int(1e6 * epsilon))
    fit(run, packed.fold(0), report, device=torch.device("cpu"))
    with Path(shared["log"]).open("a") as log:
        log.write(json.dumps({"end": time.time(), "fit": fit_seconds(rows)}) + "\n")


# -- simulated ----------------------------------------------------------------------------------------------------------


def curves(folder: Path, epoch_s: float = 1.0) -> Path:
    """Made up: the better the closer epsilon is to 0.3."""
    folder.mkdir(parents=True)
    runs, epochs = [], []
    for i, epsilon in enumerate(np.linspace(0.05, 0.6, 12)):
        for seed in range(3):
            runs.append((f"{i}-{seed}", "trial", "oai", "only", f'{{"margin.epsilon": {epsilon}}}', "complete", True))
            height = 0.7 - (epsilon - 0.3) ** 2 + 0.01 * seed
            epochs += [(f"{i}-{seed}", e, height * (1 - 0.5 ** (e + 1)), epoch_s) for e in range(EPOCHS + 1)]
    names = ["id", "kind", "dataset", "arm", "params", "state", "phantom"]
    pl.DataFrame(runs, schema=names, orient="row").write_parquet(folder / "runs.parquet")
    figures = ["id", "epoch", "val/map", "time/forward_s"]
    pl.DataFrame(epochs, schema=figures, orient="row").write_parquet(folder / "epochs.parquet")
    return folder


def thousand(trials: int = 1000) -> dict[str, Any]:
    with temporary() as root, session(cpus=2):
        folder = curves(root / "curves")
        asked = study(Dataset("oai", curves=str(folder)), fixed_margin(), trials, pruner_startup_trials=5)
        here = Here(root, asked, Curves.open(folder), folder)
        memory: list[float] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                memory.append(rss())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        began, spent = time.perf_counter(), time.process_time()
        registrar_s = here.search(asked, "thousand")
        driver_s, wall_s = time.process_time() - spent, time.perf_counter() - began
        over.set()
        thread.join()
        runs = here.runs()
        results = sum(r.result()["epochs"] for r in runs)  # type: ignore[index]
    return {
        "trials": len(runs),
        "results": results,
        "driver_s": driver_s,
        "wall_s": wall_s,
        "registrar_s": registrar_s,
        "tracking_s": here.tracking_s,
        "rss_mb": memory,
    }


def rss() -> float:
    """Of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def makespan(rounds: int = 4, epoch_s: float = 3.0) -> dict[str, Any]:
    """Trials that wait on 2 nodes x 8 logical CPUs."""
    from ray.cluster_utils import Cluster

    slots = 16
    with temporary() as root:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 8, "object_store_memory": 100_000_000, "include_dashboard": False},
        )
        try:
            cluster.add_node(num_cpus=8, object_store_memory=100_000_000)
            with session(address=cluster.address):
                folder = curves(root / "curves", epoch_s)
                dataset = Dataset("oai", curves=str(folder))
                asked = study(dataset, fixed_margin(), rounds * slots, resources=Resources(pace=1.0))
                here = Here(root, asked, Curves.open(folder), folder)
                here.search(asked, "makespan")
                runs = here.runs()
        finally:
            cluster.shutdown()
        spans = [(begun(r), r.result()["time"], fit_seconds(r.epochs())) for r in runs]  # type: ignore[index]
    spans.sort()
    workers = ready(spans, slots)
    last = ideal(workers, [s for _, _, s in spans])
    # Counted from where the last worker was ready: before it, there were not 16.
    start = workers[-1]
    took = max(e for _, e, _ in spans) - start
    return {"share": (last - start) / took, "took": took, "trials": len(spans), "seconds": spans[0][2]}


def ready(spans: list[tuple[float, float, float]], slots: int) -> list[float]:
    """When each worker took its first trial: whenever more trials ran at once than ever before.

    The first trials to begin are not it: a worker that is there early ends its first one before the last worker is there.
    """
    running: list[float] = []
    found: list[float] = []
    for begin, end, _ in sorted(spans):
        while running and running[0] <= begin:
            heapq.heappop(running)
        heapq.heappush(running, end)
        if len(running) > len(found):
            found.append(begin)
    return found + found[-1:] * (slots - len(found))


def begun(run: RunFolder) -> float:
    """When a worker took it; its folder is there before, while the worker starts."""
    return (run.path / "attempts.json").stat().st_mtime


def ideal(ready: list[float], seconds: list[float]) -> float:
    """When the last one ends, were each trial to begin the moment a worker is free."""
    free = list(ready)
    heapq.heapify(free)
    end = 0.0
    for s in seconds:
        at = heapq.heappop(free) + s
        end = max(end, at)
        heapq.heappush(free, at)
    return end


# -- nested -------------------------------------------------------------------------------------------------------------


def nested(times: int = 7) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    with temporary() as root, session(cpus=2):
        folder = curves(root / "curves")
        asked = study(Dataset("oai", curves=str(folder)), fixed_margin(), 1)
        here = Here(root, asked, Curves.open(folder), folder)
        plan = here.declare(asked)
        for turn in range(times + 1):  # the first one warms up
            task = plan.trial(plan.searches()[0], turn, {"margin.epsilon": 0.3}, 0)
            run = RunFolder.create(here.folder / task.folder, task.run, task.labels)
            for name, start in (("bare", bare_start), ("ours", our_start)):
                took = start(here, run)
                if turn:
                    found[name].append(took)
    return found


def our_start(here: Here, run: RunFolder) -> float:
    began = time.time()
    ask = {"session": "s", "study": str(here.folder)}
    train_group([str(run.path)], here.packed, Resources(workers=2), 0.0, here.folder / "ray", ask)
    return float(run.epochs()[0]["time"]) - began


def bare_start(here: Here, run: RunFolder) -> float:
    from ray.train import LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    path = run.path / "bare"
    began = time.time()
    TorchTrainer(
        bare_worker,
        train_loop_config={"path": str(path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=str(here.folder / "bare"), logging_config=LoggingConfig(log_level="ERROR")),  # type: ignore[call-arg]
    ).fit()
    return float(path.read_text()) - began


def bare_worker(config: dict[str, Any]) -> None:
    import ray.train

    if ray.train.get_context().get_world_rank() == 0:
        Path(config["path"]).write_text(repr(time.time()))
