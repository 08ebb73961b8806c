"""The losses' time and memory, beside pytorch-metric-learning and beside the bare matrix product.

    make bench ONLY=losses
    PYTHONPATH=platform python tests/benchmarks/bench_losses.py speed 2      # with 2 threads, as JSON
    PYTHONPATH=platform python tests/benchmarks/bench_losses.py memory

Steps take turns in one process, and each turn gives one ratio. D = 128, 4 images per identity, float32. A step is what
a training does with the embeddings of a batch: normalise, mine, loss, backward; MarginLab's also takes AutoMargin's statistics.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import Row, apart, ratios, spread, times, turns
from pytorch_metric_learning import distances, losses, miners
from torch import Tensor
from torch.nn.functional import normalize

from marginlab.losses import SCT, WAT, AdaTriplet, FineTriplet, Pairs, Triplet
from marginlab.margins import Margin, Statistics

D, PER_IDENTITY = 128, 4
GOALS = {128: 15, 512: 25, 2048: 50}  # times faster than the library
TURNS = {128: 60, 512: 20, 2048: 7}
MARGIN = Margin.of(0.25, 0.1, beta_p=0.5)

NOTE = """
What limits it. No step that computes the similarities is faster than the bare product, so the rows that compare the library
with the bare product bound the rows that compare it with AdaTriplet. The library is at its worst at B = 512: it makes all
B x B x B cells up to 2**31 of them, and loops over anchors beyond. At B = 128 the time is that of starting 235 small
operations (the bare product: 36), not of computing. At B = 2048 it is that of passes over [B, B]: six for each positive and
about twelve more, in pieces of 2**16 cells that stay in cache. With two threads each piece is divided between them,
which costs more than it gains where anything else runs.

Memory: the growth of the peak resident set (VmHWM) of a process of its own over one step.
"""

Step = Callable[[], None]


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Embeddings [size, D] before normalisation and their labels: triplets of every kind, as early in a training."""
    generator = torch.Generator().manual_seed(size)
    labels = torch.arange(size) // PER_IDENTITY
    centres = torch.randn(size // PER_IDENTITY, D, generator=generator)[labels]
    return (0.9 * centres + torch.randn(size, D, generator=generator)).requires_grad_(), labels


def own(loss: Any, x: Tensor, labels: Tensor) -> Step:
    def step() -> None:
        pairs = Pairs.of(x, labels, max_positives=PER_IDENTITY - 1)
        terms = loss(pairs, MARGIN)
        Statistics.of(pairs)
        x.grad = None
        terms.total.backward()

    return step


def library(criterion: Any, miner: Any, x: Tensor, labels: Tensor) -> Step:
    def step() -> None:
        unit = normalize(x)
        x.grad = None
        criterion(unit, labels, miner(unit, labels) if miner else None).backward()

    return step


def product(x: Tensor) -> Step:
    """The similarities, and back from a gradient that is there already."""
    gradient = torch.randn(len(x), len(x), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        unit = normalize(x)
        x.grad = None
        (unit @ unit.T).backward(gradient)

    return step


def triplets(kind: str = "semihard", margin: float = 0.25, smooth: bool = False) -> tuple[Any, Any]:
    cosine = distances.CosineSimilarity()
    return (
        losses.TripletMarginLoss(margin, smooth_loss=smooth, distance=cosine),
        miners.TripletMarginMiner(margin, kind, distance=cosine),
    )


def counterparts() -> dict[str, tuple[Any, tuple[Any, Any], str]]:
    """By name: the loss, what the library has for it, and what that is called."""
    cosine = distances.CosineSimilarity()
    nearest = miners.BatchEasyHardMiner("easy", "hard", distance=cosine)
    kinds = {
        f'Triplet("{k}")': (Triplet(k), triplets(k), f"{k} miner + triplet loss") for k in ("semihard", "all", "hard")
    }
    return kinds | {
        "AdaTriplet(smooth=True)": (
            AdaTriplet(smooth=True),
            triplets(smooth=True),
            "semihard miner + smooth triplet loss",
        ),
        'AdaTriplet(pair="lse", pull=1)': (AdaTriplet(pair="lse", pull=1), triplets(), "semihard miner + triplet loss"),
        "WAT()": (WAT(), triplets("all", WAT().epsilon), "miner of all + triplet loss"),
        "SCT()": (
            SCT(),
            (losses.TripletMarginLoss(smooth_loss=True, distance=cosine), nearest),
            "easy-hard miner + smooth triplet loss",
        ),
        "FineTriplet()": (FineTriplet(), (losses.CircleLoss(0.25, 1), None), "Circle loss"),
    }


def speed(threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    out = []
    for size, number in TURNS.items():
        x, y = batch(size)
        steps = {"own": own(AdaTriplet(), x, y), "library": library(*triplets(), x, y), "product": product(x)}
        out.append({"what": "AdaTriplet", "batch": size, "seconds": turns(steps, number)})
    x, y = batch(512)
    for name, (loss, (criterion, miner), called) in counterparts().items():
        steps = {"own": own(loss, x, y), "library": library(criterion, miner, x, y)}
        out.append({"what": name, "batch": 512, "library": called, "seconds": turns(steps, TURNS[512])})
    return out


def memory(size: int = 2048) -> dict[str, float]:
    """The most memory that a step has on top of what was there before it, in units of size x size x 4 bytes."""
    out = {}
    small = batch(64)
    x, y = batch(size)
    for name, of in {
        "own": lambda x, y: own(AdaTriplet(), x, y),
        "product": lambda x, y: product(x),
        "library": lambda x, y: library(*triplets(), x, y),
    }.items():
        of(*small)()  # code, threads and their buffers are there
        step = of(x, y)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present
        before = _bytes("VmRSS")
        step()
        out[name] = (_bytes("VmHWM") - before) / (size * size * 4)
    return out


def _bytes(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def rows() -> Iterator[Row]:
    for threads in (2, 1):
        for found in apart(__file__, "speed", str(threads)):
            seconds, size = found["seconds"], found["batch"]
            where = f"B = {size}, {threads} thread{'s' * (threads > 1)}"
            faster = ratios(seconds["library"], seconds["own"])
            took = f"{times(faster)}; {spread(seconds['own'])[0] * 1e3:.2f} ms"
            if found["what"] != "AdaTriplet":
                what = f"{found['what']} against {found['library']}, {where}"
                yield Row(what, "faster", took, faster[0] > 1)
                continue
            what = "AdaTriplet with AutoMargin's statistics against"
            yield Row(
                f"{what} semihard miner + triplet loss, {where}",
                f"{GOALS[size]}x faster",
                took,
                faster[0] >= GOALS[size],
            )
            slower, best = ratios(seconds["own"], seconds["product"]), ratios(seconds["library"], seconds["product"])
            goal = "within 5x" if size == 2048 else ""
            yield Row(
                f"{what} the bare product with its backward, {where}",
                goal,
                times(slower),
                slower[0] <= 5 if goal else None,
            )
            yield Row(f"semihard miner + triplet loss against the bare product, {where}", "", times(best), None)
    extra = apart(__file__, "memory")
    what = "peak extra memory of an AdaTriplet step, B = 2048, in B x B x 4 bytes"
    beside = f"{extra['own']:.1f} (bare product {extra['product']:.1f}, the library {extra['library']:.1f})"
    yield Row(what, "under 8", beside, extra["own"] < 8)


if __name__ == "__main__":
    print(json.dumps(memory() if sys.argv[1] == "memory" else speed(int(sys.argv[2]))))
