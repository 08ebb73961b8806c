"""All metrics of ``Ranking`` against the bare product Q G^T in the same chunks: time and memory.

    make bench ONLY=retrieval
    PYTHONPATH=platform python tests/benchmarks/bench_retrieval.py "R = 3"      # one case, as JSON

Each case has a process of its own, so that its peak memory is its own. Product and ranking take turns there, and each
pair gives one ratio: what else the machine does meets both. D = 128, as many threads as there are processors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Row, apart, ratios, times

from marginlab.retrieval import Ranking, metrics, unit
from marginlab.retrieval.embeddings import full_precision
from marginlab.retrieval.memory import block_bytes
from marginlab.values import stable_seed

D = 128
K = (1, 5, 10, 20, 50)
NAMES = [*metrics.KINDS, *(f"{kind}_{k}" for kind in metrics.KINDS_AT_K for k in K)]
MOST_MEMORY = 1.5e9  # bytes, of the whole process
TURNS = 5


@dataclass(frozen=True)
class Case:
    make: Callable[[np.random.Generator], dict[str, Any]]  # the arguments of Ranking.of
    goal: float  # times the bare product


def points(rng: np.random.Generator, label: np.ndarray, spread: float = 0.7) -> torch.Tensor:
    """[n, D], images of one label nearer to each other: neither found at once nor lost."""
    centres = rng.standard_normal((label.max() + 1, D), dtype=np.float32)
    return unit(
        torch.from_numpy(centres[label] * np.float32(spread) + rng.standard_normal((len(label), D), np.float32))
    )


def all_against_all(rng: np.random.Generator, label: np.ndarray) -> dict[str, Any]:
    x, image = points(rng, label), np.arange(len(label))
    own = {"query": x, "query_label": label, "query_visit": image}
    return {**own, "gallery": x, "gallery_label": label, "gallery_visit": image}


def even(rng: np.random.Generator) -> dict[str, Any]:
    """20,000 images, 4 per identity."""
    return all_against_all(rng, rng.permutation(np.repeat(np.arange(5000), 4)))


def long_tail(rng: np.random.Generator) -> dict[str, Any]:
    """20,000 images of patients with 1 to 184 of them, 3.6 in the mean: ChestX-ray14's, as a power law."""
    n = np.arange(1, 185)
    chance = n**-1.98
    sizes = np.concatenate([[184], rng.choice(n, 20_000, p=chance / chance.sum())])
    return all_against_all(rng, rng.permutation(np.repeat(np.arange(len(sizes)), sizes)[:20_000]))


def graded(rng: np.random.Generator) -> dict[str, Any]:
    """Fundus images, 7,022 queries and 28,086 in the gallery, 70% of it of the queries' grade; neighbouring grades count."""
    gallery = rng.choice(5, 28_086, p=[0.7, 0.08, 0.17, 0.03, 0.02])
    query = np.zeros(7022, dtype=np.int64)
    x = points(rng, np.concatenate([query, gallery]), 0.2)
    gain = np.maximum(0.0, 4.0 - np.abs(np.subtract.outer(np.arange(5), np.arange(5))))
    return {"query": x[:7022], "gallery": x[7022:], "query_label": query, "gallery_label": gallery, "gain": gain}


CASES = {
    "R = 3": Case(even, 8),
    "long tail": Case(long_tail, 12),
    "graded, R = 0.7 G": Case(graded, 60),
}


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Q G^T as ``Ranking`` computes it: the same chunks, into the same memory."""
    chunk = max(1, block_bytes(query.device) // (4 * len(gallery)))
    room = torch.empty(chunk, len(gallery))
    with full_precision(query.device):
        for i in range(0, len(query), chunk):
            q = query[i : i + chunk]
            torch.mm(q, gallery.T, out=room[: len(q)])


def measure(case: Case, name: str) -> dict[str, Any]:
    how = case.make(np.random.default_rng(stable_seed("bench retrieval", name)))
    seconds: dict[str, list[float]] = {"product": [], "ranks": [], "metrics": []}
    means: dict[str, float] = {}
    for turn in range(TURNS + 1):
        began = time.perf_counter()
        product(how["query"], how["gallery"])
        multiplied = time.perf_counter()
        ranking = Ranking.of(**how)
        ranked = time.perf_counter()
        means = ranking.figures(NAMES).means
        ranking.worst(10)
        ended = time.perf_counter()
        del ranking
        if turn:  # the first one warms up
            took = {"product": multiplied - began, "ranks": ranked - multiplied, "metrics": ended - ranked}
            for part, s in took.items():
                seconds[part].append(s)
    return {"seconds": seconds, "peak": peak(), "means": means}


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def rows() -> Iterator[Row]:
    for name, case in CASES.items():
        found = apart(__file__, name)
        assert np.isfinite(list(found["means"].values())).all()
        s = {part: np.array(v) for part, v in found["seconds"].items()}
        ratio = ratios(s["ranks"] + s["metrics"], s["product"])
        medians = ", ".join(f"{part} {np.median(v):.2f} s" for part, v in s.items())
        what = f"all metrics of `Ranking` against the bare product, {name}"
        yield Row(what, f"within {case.goal:g}x", f"{times(ratio)}; {medians}", ratio[0] <= case.goal)
        peak_GB = found["peak"] / 1e9
        yield Row(
            f"peak memory of the process, {name}", "under 1.5 GB", f"{peak_GB:.2f} GB", peak_GB < MOST_MEMORY / 1e9
        )


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(measure(CASES[sys.argv[1]], sys.argv[1])))
