"""Whether the phantoms are neither too easy nor too hard for the demo: the bar that decides their parameters.

    OMP_NUM_THREADS=1 PYTHONPATH=platform python tests/benchmarks/phantom_bar.py FOLDER [--workers 2]

It trains the fixed-margin default of studies/demo.py and random fixed margins, as the demo does, and never compares the
study's arms. It writes
FOLDER/phantom_bar.json and .md, and exits with 1 if a bar is missed. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import runpy
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marginlab.data.packed import PackedDataset
from marginlab.data.phantom import PHANTOMS, write
from marginlab.data.readers import reader
from marginlab.data.store import prepare
from marginlab.losses import AdaTriplet
from marginlab.margins import FixedMargin
from marginlab.retrieval import protocol_scores
from marginlab.training import Run, State, Training, embed, fit
from marginlab.values import stable_seed

TIMED = ("oai", "cxr14")  # phantoms whose subjects are seen more than once
EPOCHS = (4, 6)  # of the demo's search, of its confirmation
SEEDS, CONFIGURATIONS = 8, 20
HORIZON_SEEDS, OTHERS = 3, 8  # trainings; further phantoms, whose subjects no training sees, that measure the horizons
FEWEST = 150  # queries: a horizon with fewer of them is shown, but not judged
DEMO = Path(__file__).parents[2] / "studies" / "demo.py"
REFERENCE: Training = dataclasses.replace(runpy.run_path(str(DEMO))["fixed"], epochs=max(EPOCHS))


@dataclasses.dataclass(frozen=True)
class Task:
    """One training; ``others`` are packed folders on which its network is tested afterwards."""

    folder: Path
    training: Training
    seed: int
    others: tuple[Path, ...] = ()


def pack(name: str, seed: int, folder: Path) -> Path:
    phantom = dataclasses.replace(PHANTOMS[name], seed=seed)
    raw, packed = folder / f"raw-{name}-{seed}", folder / f"packed-{name}-{seed}"
    if not packed.exists():
        write(phantom, raw)
        private = folder / "private"
        prepare(reader(name), raw, packed, name=name, size=phantom.size, workers=1, private=private, phantom="bar")
    return packed


def train(task: Task) -> dict[str, Any]:
    """Validation mAP after each epoch, and on each horizon a list of (mAP, number of queries), one per gallery of others."""
    torch.set_num_threads(1)
    packed, last = PackedDataset.open(task.folder), {}
    data = packed.fold(0)
    curve: list[float] = []

    def report(epoch: int, metrics: dict[str, float], state: State) -> bool:
        curve.append(metrics["val/map"])
        last["network"] = state.network
        return True

    fit(Run(packed.name, packed.fingerprint, task.training, 0, task.seed), data, report, device="cpu")
    horizons: dict[int, list[tuple[float, int]]] = {}
    for other in map(PackedDataset.open, task.others):
        for subset in (other.fold(i).validation for i in range(5)):  # galleries as large as the demo's
            found = embed(last["network"], subset, task.training, data.mean, data.std, torch.device("cpu"))
            scores = protocol_scores(found, subset)
            months = np.round(subset.months[subset.query])
            for h in subset.horizons():
                if f"map_{h}m" in scores:
                    horizons.setdefault(h, []).append((scores[f"map_{h}m"], int((months == h).sum())))
    return {"curve": curve, "horizons": horizons}


def configurations(reference: Training) -> list[Training]:
    rng = np.random.default_rng(stable_seed("phantom bar"))
    out = []
    for _ in range(CONFIGURATIONS):
        epsilon, beta, lam = (float(rng.uniform(*r)) for r in ((0.05, 0.6), (-0.2, 0.6), (0.2, 2.0)))
        out.append(dataclasses.replace(reference, margin=FixedMargin(epsilon, beta), loss=AdaTriplet(lam=lam)))
    return out


def measure(name: str, reference: Training, folder: Path, pool: ProcessPoolExecutor) -> dict[str, Any]:
    demo = pack(name, 0, folder)
    others = tuple(pool.map(pack, [name] * OTHERS, range(1, OTHERS + 1), [folder] * OTHERS))
    tasks = [Task(demo, reference, s, others if s < HORIZON_SEEDS else ()) for s in range(SEEDS)]
    tasks += [Task(demo, c, 0) for c in configurations(reference)]
    results = list(pool.map(train, tasks))
    curves = np.array([r["curve"] for r in results])
    seeds, configs = curves[:SEEDS], curves[SEEDS:]
    rows: dict[int, list[tuple[float, int]]] = {}
    for r in results[:HORIZON_SEEDS]:
        for h, found in r["horizons"].items():
            rows.setdefault(h, []).extend(found)
    horizons = {h: np.array(v) for h, v in sorted(rows.items())}
    data = PackedDataset.open(demo).fold(0)
    return {
        "images": {"train": len(data.train), "validation": len(data.validation)},
        "untrained": float(seeds[:, 0].mean()),
        "trained": {e: float(seeds[:, e].mean()) for e in EPOCHS},
        "best_configuration": {e: float(configs[:, e].max()) for e in EPOCHS},
        "worst_configuration": {e: float(configs[:, e].min()) for e in EPOCHS},
        "sd_seeds": {e: float(seeds[:, e].std(ddof=1)) for e in EPOCHS},
        "sd_configurations": {e: float(configs[:, e].std(ddof=1)) for e in EPOCHS},
        "horizons": {h: float(np.average(v[:, 0], weights=v[:, 1])) for h, v in horizons.items()},
        "queries": {h: int(v[:, 1].sum()) // HORIZON_SEEDS for h, v in horizons.items()},
        "curves": {"seeds": seeds.round(4).tolist(), "configurations": configs.round(4).tolist()},
    }


def verdicts(m: dict[str, Any]) -> dict[str, bool]:
    by_horizon = [v for h, v in m["horizons"].items() if m["queries"][h] >= FEWEST]
    return {
        "untrained mAP at most 0.25": m["untrained"] <= 0.25,
        "trained mAP 0.5 to 0.9": all(0.5 <= v <= 0.9 for v in m["trained"].values()),
        f"mAP falls with every horizon (of at least {FEWEST} queries)": all(
            a > b for a, b in itertools.pairwise(by_horizon)
        ),
        "configurations differ twice as much as seeds": all(
            m["sd_configurations"][e] >= 2 * m["sd_seeds"][e] for e in EPOCHS
        ),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["Measured on phantoms; validation mAP unless said otherwise.", ""]
    for name, m in results.items():
        lines += [
            f"## {name}",
            "",
            f"{m['images']['train']} training and {m['images']['validation']} validation images",
            "",
        ]
        lines += ["| epochs | trained | best, worst of configurations | sd over seeds | sd over configurations |"]
        lines += ["|---|---|---|---|---|", f"| 0 | {m['untrained']:.3f} | | | |"]
        for e in EPOCHS:
            best, worst = m["best_configuration"][e], m["worst_configuration"][e]
            sds = f"{m['sd_seeds'][e]:.4f} | {m['sd_configurations'][e]:.4f}"
            lines.append(f"| {e} | {m['trained'][e]:.3f} | {best:.3f}, {worst:.3f} | {sds} |")
        lines += [
            "",
            "| months | " + " | ".join(map(str, m["horizons"])) + " |",
            "|---" * (len(m["horizons"]) + 1) + "|",
        ]
        lines += ["| mAP, first visits as gallery | " + " | ".join(f"{v:.3f}" for v in m["horizons"].values()) + " |"]
        lines += ["| queries | " + " | ".join(map(str, m["queries"].values())) + " |", ""]
        lines += [f"- {'met' if met else 'MISSED'}: {bar}" for bar, met in verdicts(m).items()] + [""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for phantoms and results; what is there is used again")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dataset", choices=TIMED, action="append")
    parser.add_argument("--lr", type=float, default=REFERENCE.lr, help="another learning rate than the demo's")
    arguments = parser.parse_args()
    reference = dataclasses.replace(REFERENCE, lr=arguments.lr)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        results = {n: measure(n, reference, arguments.folder, pool) for n in arguments.dataset or TIMED}
    (arguments.folder / "phantom_bar.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.folder / "phantom_bar.md").write_text(table(results))
    print(table(results))
    return 0 if all(all(verdicts(m).values()) for m in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
