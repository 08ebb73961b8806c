"""Whether a GPU waits for its input: ResNet-18 on 256 x 256 crops, batches of 128, bfloat16, channels-last.

    make bench ONLY=gpu
    PYTHONPATH=platform python tests/benchmarks/bench_gpu.py trace.json    # on the machine that has the GPU

Needs a GPU, and MONAI for the network. Three loops take turns: ``fit``'s own with images on the device, ``fit``'s own with
images that come through pinned memory, and the same steps on one batch that is there already. The last of ``fit``'s is
traced once more; a trace shows when no kernel ran.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Row, apart, ratios, spread
from torch.profiler import ProfilerActivity

from marginlab.augment import Augment
from marginlab.data.feeding import Feed
from marginlab.data.subset import Data, Subset
from marginlab.networks import ResNet18
from marginlab.training import Run, Training, _Trainer

BATCH, SIZE, CROP, STORED, PER_IDENTITY = 128, 280, 256, 8192, 4
TURNS = 5
TRAINED_ON = 86_524 * 4 // 5  # images of ChestX-ray14's official training split, less one fold
TRACE = Path(__file__).parents[2] / "build" / "gpu_trace.json"


def missing() -> str:
    """What is missing, in a sentence; nothing where all is there."""
    if not torch.cuda.is_available():
        return "not measured: it needs a GPU, and there is none here"
    if importlib.util.find_spec("monai") is None:
        return "not measured: it needs MONAI for ResNet-18, and it is not installed here"
    return ""


def data(folder: Path, stored: int, size: int) -> Data:
    """Random pixels, which cost the same as others, in a memory-mapped file."""
    rng, every = np.random.default_rng(0), np.arange(stored)
    np.save(folder / "images.npy", rng.integers(0, 256, (stored, 1, size, size), dtype=np.uint8))
    pixels = np.load(folder / "images.npy", mmap_mode="r")
    int(pixels.sum())  # the pages are warm
    months = (12 * (every % PER_IDENTITY)).astype(np.float32)
    train = Subset(pixels, every, every // PER_IDENTITY, every, months, months == 0, months > 0)
    return Data(train, train, (0.5,), (0.5,), "bench", 1, size)


def measure(
    device: torch.device, network: Any, stored: int = STORED, batch: int = BATCH, size: int = SIZE, crop: int = CROP
) -> dict[str, Any]:
    """Seconds per epoch of each loop in each turn, the seconds by step of the last, and the share of time without a kernel."""
    training = Training(network=network, augment=Augment(crop=crop), batch_size=batch, per_identity=PER_IDENTITY)
    margin = training.margin.start()
    epochs = itertools.count(1)
    with tempfile.TemporaryDirectory() as folder:
        d = data(Path(folder), stored, size)
        loops: dict[str, Callable[[], Any]] = {}
        trainers = {c: _Trainer(Run("bench", "bench", training, 0, 0), d, device, c) for c in ("device", "host")}
        for cache, trainer in trainers.items():
            loops[cache] = lambda t=trainer: t.train_epoch(next(epochs), margin)
        fixed = standing_still(training, d, device)
        loops["fixed"] = lambda: fixed.train_epoch(next(epochs), margin)
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        steps: dict[str, dict[str, float]] = {}
        for turn in range(TURNS + 1):
            for name, loop in loops.items():
                clock = fixed.clock if name == "fixed" else trainers[name].clock
                wait(device)
                began = time.perf_counter()
                loop()
                wait(device)
                if turn:  # the first one chooses algorithms
                    seconds[name].append(time.perf_counter() - began)
                steps[name] = clock.seconds()
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        idle = {}
        for name in trainers:
            with torch.profiler.profile(activities=activities) as profiler:
                loops[name]()
                wait(device)
            TRACE.parent.mkdir(exist_ok=True)
            profiler.export_chrome_trace(str(TRACE.with_stem(f"{TRACE.stem}_{name}")))
            idle[name] = without_kernel(profiler)
    return {"seconds": seconds, "steps": steps, "idle": idle, "images": len(d.train) // batch * batch}


class Still:
    """An augmentation that gives the same images in every step."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.crop = images, images.shape[-1]

    def draw(self, *where: int) -> np.ndarray:
        return np.zeros((where[-1], 0), np.float32)

    def train(self, *_: Any) -> torch.Tensor:
        return self.images


def standing_still(training: Training, d: Data, device: torch.device) -> _Trainer:
    """A trainer whose every step has the first augmented batch, which is there already."""
    batch = np.arange(training.batch_size)
    pixels = next(Feed(d.train, device, "host").batches(batch[None])).clone()
    draws = torch.from_numpy(training.augment.draw(0, 1, 0, len(batch)))
    still = Still(training.augment.train(pixels, draws, d.mean, d.std))
    run = Run("bench", "bench", dataclasses.replace(training, augment=still), 0, 0)
    trainer = _Trainer(run, d, device, "host")
    trainer.train_feed.batches = lambda plan: itertools.repeat(pixels, len(plan))  # type: ignore[method-assign, assignment, return-value]
    return trainer


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def without_kernel(profiler: torch.profiler.profile) -> float:
    """The share of time, from the first kernel to the end of the last, in which the device had nothing to do."""
    spans = sorted(
        (e.time_range.start, e.time_range.end)
        for e in profiler.events() or []
        if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation
    )
    if not spans:
        return float("nan")
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - busy / (end - spans[0][0])


def rows() -> Iterator[Row]:
    what = "ResNet-18, 256 x 256, B = 128, bfloat16, channels-last"
    if missing():
        yield Row(f"{what}: images/s with real input, its share of the step, idle time", "", missing(), None)
        return
    found = apart(__file__, str(TRACE))
    s, images = found["seconds"], found["images"]
    for name, where in (("device", "images on the device"), ("host", "images through pinned memory")):
        share, low, high = ratios(s["fixed"], s[name])
        rate, still = (images / spread(s[k])[0] for k in (name, "fixed"))
        measured = f"{share:.3f} of it ({low:.3f} to {high:.3f}); {rate:,.0f} and {still:,.0f} images/s"
        yield Row(f"{what}: images/s, {where}, against one fixed batch", "at least 0.95 of it", measured, share >= 0.95)
        steps = {k: v for k, v in found["steps"][name].items() if k != "evaluation"}
        part = (steps["data"] + steps["augment"]) / sum(steps.values())
        shares = ", ".join(f"{k} {v / sum(steps.values()):.1%}" for k, v in steps.items())
        yield Row(f"input and augmentation, {where}", "under 5% of the step", f"{part:.1%} ({shares})", part < 0.05)
        idle = found["idle"][name]
        yield Row(f"time without a kernel in the trace, {where}", "under 5%", f"{idle:.1%}", idle < 0.05)
        yield Row(
            f"epochs of ChestX-ray14 ({TRAINED_ON:,} images) per hour, {where}, without evaluation",
            "",
            f"{3600 * rate / TRAINED_ON:.0f}",
            None,
        )


NOTE = """
The traces are in `build/gpu_trace_device.json` and `build/gpu_trace_host.json`: open them in a browser's tracing page or Perfetto.
""" * (not missing())

if __name__ == "__main__":
    if missing():
        sys.exit(f"{missing()}.")
    TRACE = Path(sys.argv[1]) if len(sys.argv) > 1 else TRACE
    print(json.dumps(measure(torch.device("cuda"), ResNet18())))
