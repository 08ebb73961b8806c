"""Training input: how fast batches come, and how much memory they take, against what one would write without MarginLab.

    make bench ONLY=input
    PYTHONPATH=platform python tests/benchmarks/bench_input.py gather      # one measurement, as JSON

Images of 280 x 280 pixels, batches of 128, crops of 256. The pictures are chest phantoms.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from input_rivals import MEAN, SIZE, STD, Files, Stored, augment, loader, one_after_another
from measuring import Row, apart, ratios, spread, times, turns
from PIL import Image

from marginlab.augment import Augment
from marginlab.clock import Clock, listening
from marginlab.data import manifest as mf
from marginlab.data.feeding import Feed
from marginlab.data.packed import PackedDataset
from marginlab.data.phantom import Cxr14Phantom
from marginlab.data.phantom.layout_cxr14 import patient, pictures
from marginlab.data.subset import Subset
from marginlab.networks import SmallNetwork
from marginlab.training import Run, State, Training, fit

BATCH, STORED, FILES = 128, 2048, 256
CHESTX_RAY14 = 112_120  # images
SMALL = 64  # pixels per side where only the number of images matters
STEPS = 5  # batches whose memory is looked at


def phantoms(count: int, size: int) -> list[np.ndarray]:
    """uint8 [size, size], of different people."""
    phantom = Cxr14Phantom(subjects=count, size=size)
    return [pictures(phantom, i, patient(phantom, i))[0] for i in range(count)]


def store(folder: Path) -> Subset:
    """A memory-mapped store with all its pages in memory and seen by this process."""
    some = np.stack(phantoms(32, SIZE))[:, None]
    np.save(folder / "images.npy", np.concatenate([np.roll(some, k, 2) for k in range(STORED // len(some))]))
    pixels = np.load(folder / "images.npy", mmap_mode="r")
    int(pixels.sum())
    every, no = np.arange(STORED), np.zeros(STORED, bool)
    return Subset(pixels, every, every // 4, every, np.zeros(STORED, np.float32), no, no)


def gather() -> dict[str, list[float]]:
    """Seconds of a batch, and of a memcpy of as many bytes that lie together in the same store, into memory that is there."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subset, rng = store(Path(folder)), np.random.default_rng(0)
        batches = Feed(subset, torch.device("cpu")).batches(rng.integers(0, STORED, (60, BATCH)))
        room = np.empty((BATCH, 1, SIZE, SIZE), np.uint8)
        starts = iter(rng.integers(0, STORED - BATCH, 60))

        def copy() -> None:
            start = next(starts)
            np.copyto(room, subset.pixels[start : start + BATCH])

        return turns({"gather": lambda: next(batches), "memcpy": copy}, 50)


def ours(subset: Subset, augmented: bool) -> Callable[[], Any]:
    """A batch as ``fit`` has it before the network."""
    a, rng = augment(), np.random.default_rng(1)
    batches = Feed(subset, torch.device("cpu")).batches(rng.integers(0, STORED, (1000, BATCH)))
    steps = iter(range(1000))

    def batch() -> None:
        pixels = next(batches)
        if augmented:
            a.train(pixels, torch.from_numpy(a.draw(0, 1, next(steps), BATCH)), (MEAN,), (STD,))
        else:
            a.evaluate(pixels, (MEAN,), (STD,))

    return batch


def loaded(threads: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per batch, ours and of DataLoaders, which have two workers whatever ``threads`` is."""
    torch.set_num_threads(threads)
    out: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subset = store(folder)
        files = [folder / f"{i}.png" for i in range(FILES)]
        large = phantoms(16, 1024)
        for i, file in enumerate(files):
            Image.fromarray(np.roll(large[i % len(large)], i, 1)).save(file)
        for name, dataset, augmented in (
            ("files", Files(files, False), False),
            ("files, augmented", Files(files, True), True),
            ("store, augmented", Stored(subset.pixels, 4 * BATCH), True),
        ):
            rival, batch = loader(dataset, BATCH), ours(subset, augmented)
            epochs = len(rival)

            def whole(rival: Any = rival) -> None:
                for _ in rival:
                    pass

            def as_many(batch: Callable[[], Any] = batch, epochs: int = epochs) -> None:
                for _ in range(epochs):
                    batch()

            found = turns({"ours": as_many, "rival": whole}, 3)
            out[name] = {k: [s / epochs for s in v] for k, v in found.items()}
            del rival
    return out


def fused(threads: int) -> dict[str, list[float]]:
    """Seconds of the augmentation of one batch, fused and one transform after another with the same draws."""
    torch.set_num_threads(threads)
    a, rng = augment(), np.random.default_rng(2)
    some = np.stack(phantoms(32, SIZE))[:, None]
    images = torch.from_numpy(np.concatenate([some] * (BATCH // len(some))))
    draws = torch.from_numpy(a.draw(0, 1, int(rng.integers(100)), BATCH))
    apart = (a.train(images, draws, (MEAN,), (STD,)) - one_after_another(images, draws)).abs()
    assert float(apart.mean()) < 1e-3, "the two do not make the same images"
    steps: dict[str, Callable[[], Any]] = {
        "fused": lambda: a.train(images, draws, (MEAN,), (STD,)),
        "unfused": lambda: one_after_another(images, draws),
    }
    return turns(steps, 15)


def memory(images: int) -> dict[str, float]:
    """Anonymous memory of a process that trains on so many images of 64 x 64, at most, over its first batches, in bytes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pack(Path(temporary), images)
        PackedDataset.open(folder).fold(0)  # imports and first calls
        began = time.perf_counter()
        data = PackedDataset.open(folder).fold(0)
        opening = time.perf_counter() - began
        most, batches = [_anonymous()], [0]

        class Enough(Exception):
            pass

        def look(clock: Clock, name: str) -> Any:
            most[0] = max(most[0], _anonymous())
            batches[0] += name == "backward"
            if batches[0] > STEPS:
                raise Enough
            return nullcontext()

        def report(epoch: int, metrics: dict[str, float], state: State) -> bool:
            most[0] = max(most[0], _anonymous())
            return True

        training = Training(network=SmallNetwork(), augment=Augment(crop=SMALL - 8), epochs=1)
        try:
            with listening(look):
                fit(Run("bench", data.fingerprint, training, 0, 0), data, report, device="cpu")
        except Enough:
            pass
        return {"most": most[0], "opening": opening}


def pack(folder: Path, images: int) -> Path:
    """A packed dataset of so many images, as many per subject as in ChestX-ray14 (3.6); its pixels are holes in a file."""
    rng = np.random.default_rng(3)
    subject = np.sort(rng.integers(0, max(8, int(images / 3.64)), images))
    number = np.arange(images) - np.searchsorted(subject, subject)
    test, fold = subject % 5 == 0, (subject // 5) % 5
    columns = {
        "row": np.arange(images),
        "subject": [f"{s:016x}" for s in subject],
        "label": [f"{s:016x}" for s in subject],
        "months": (12 * number).astype(np.float32),
        "side": [None] * images,
        "view": np.where(rng.random(images) < 0.5, "PA", "AP"),
        "site": [None] * images,
        "split": np.where(test, "test", "train"),
        "fold": [None if t else int(f) for t, f in zip(test, fold, strict=True)],
        "role": np.where(number == 0, "gallery", "query"),
        "channels": np.ones(images, np.int8),
        "age": (40 + number).astype(np.float32),
        "grade": [None] * images,
    }
    frame = pl.DataFrame(columns, schema=mf.SCHEMA)
    frame.write_parquet(folder / "manifest.parquet")
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (images, 1, SMALL, SMALL)).flush()
    info = {"name": "bench", "label": "subject", "size": SMALL, "channels": 1, "mean": [0.5], "std": [0.25]}
    info |= {"fingerprint": "bench", "images": images, "phantom": "holes", "format": 1, "crop": None}
    (folder / "dataset.json").write_text(json.dumps(info))
    (folder / "report.json").write_text("{}")
    return folder


def _anonymous() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def rows() -> Iterator[Row]:
    s = apart(__file__, "gather")
    share, low, high = ratios(s["memcpy"], s["gather"])
    rate = BATCH * SIZE * SIZE / spread(s["gather"])[0] / 1e9
    yield Row(
        "gather of 128 images of 280 x 280 from the store, against a memcpy of as many bytes, pages warm",
        "at least 0.6 of it",
        f"{share:.2f} of it ({low:.2f} to {high:.2f}); {rate:.1f} GB/s",
        share >= 0.6,
    )
    names = {
        "files": ("without augmentation against a DataLoader with 2 workers that decodes and resizes PNGs", 30.0),
        "files, augmented": ("with augmentation against that DataLoader with per-image torch augmentation", 2.5),
        "store, augmented": (
            "with augmentation against a DataLoader with 2 workers that augments stored images one by one",
            None,
        ),
    }
    for name, found in apart(__file__, "loaded", "2").items():  # on the same two cores
        what, goal = names[name]
        faster = ratios(found["rival"], found["ours"])
        rates = " and ".join(f"{BATCH / spread(found[k])[0]:,.0f}" for k in ("ours", "rival"))
        yield Row(
            f"input {what}, 2 threads",
            f"{goal:g}x" if goal else "",
            f"{times(faster)}; {rates} images/s",
            faster[0] >= goal if goal else None,
        )
    for threads in (2, 1):
        s = apart(__file__, "fused", str(threads))
        faster = ratios(s["unfused"], s["fused"])
        yield Row(
            f"fused augmentation against one transform of the batch after another, {threads} thread{'s' * (threads > 1)}",
            "1.5x",
            f"{times(faster)}; {1e3 * spread(s['fused'])[0]:.0f} ms for 128 images",
            faster[0] >= 1.5,
        )
    large, small = (apart(__file__, "memory", str(n)) for n in (CHESTX_RAY14, 1000))
    beyond = large["most"] - small["most"]
    yield Row(
        f"anonymous memory of a training process on {CHESTX_RAY14:,} images, beyond that of one on 1,000",
        "under 400 MB",
        f"{beyond / 1e6:.0f} MB ({large['most'] / 1e6:.0f} and {small['most'] / 1e6:.0f} MB)",
        beyond < 400e6,
    )
    yield Row(
        f"opening a packed dataset of {CHESTX_RAY14:,} images for a fold",
        "under 2 s",
        f"{large['opening']:.2f} s",
        large["opening"] < 2,
    )


NOTE = """
The DataLoaders' workers decode 1024 x 1024 8-bit PNGs of chest phantoms (page cache warm, workers running), resize, crop and
normalise, on the same two cores. Before the comparison of fused and unfused their results were held against each other.
Memory: RssAnon of a process of its own, the most over evaluation of the untrained network and the first batches; pages of
the store belong to the page cache and are not in it. The process on 1,000 images has the same network and batches.
"""

if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*map(int, sys.argv[2:]))))
