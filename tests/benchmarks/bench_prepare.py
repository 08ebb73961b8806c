"""How fast images are prepared, and what a dataset of ChestX-ray14's size costs to prepare and to open.

    make bench ONLY=prepare
    PYTHONPATH=platform python tests/benchmarks/bench_prepare.py speed FOLDER      # as JSON; also: many FOLDER, open FOLDER

speed: 1024 x 1024 8-bit PNGs (40 different ones under many names, in the page cache) to 280 x 280, by ``prepare`` with all that
it does besides decoding (starting its processes, reading the table, check sums, fingerprint, writing), against processes that
are there already and do nothing but open, decode and resize. many: 112,120 files of 16 x 16 in the layout of ChestX-ray14.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Row, apart, ratios, turns
from PIL import Image

IMAGES, DIFFERENT, SIDE, STORED = 800, 40, 1024, 280
MANY, PATIENTS, TESTED, TINY = 112_120, 30_805, 2_797, 16
TURNS = 5
NOTE = """
`prepare` is timed from its call to the dataset that is there, the bare loop without starting its processes. Memory is the largest
resident set of the process that was asked plus that of each decoding process, so it counts what the page cache lends them. The
process that opens the dataset has torch and MarginLab loaded and makes a fold, the test split and a batch of 128; RssAnon is of
all that, because no network is there.
"""


def bare(paths: list[str]) -> int:
    """What any program has to do."""
    return sum(
        int(np.asarray(Image.open(p).convert("L").resize((STORED, STORED), Image.Resampling.BILINEAR))[0, 0])
        for p in paths
    )


def picture(seed: int, side: int) -> bytes:
    """A PNG that compresses about as a radiograph does: shades with a little noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 226, (16, 16), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grey = np.clip(np.asarray(coarse, dtype=np.int16) + rng.normal(0, 1.5, (side, side)).round(), 0, 255)
    out = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_cxr14(root: Path, images: int, patients: int, tested: int, give: Callable[[int, Path], object]) -> None:
    """Tables and images in the layout of ChestX-ray14. give: writes image number i to a path."""
    (root / "images").mkdir(parents=True)
    rows, lists = ["Image Index,Follow-up #,Patient ID,Patient Age,View Position"], ([], [])  # type: ignore[var-annotated]
    for i in range(images):
        patient, visit = i % patients, i // patients
        name = f"{patient:08}_{visit:03}.png"
        give(i, root / "images" / name)
        rows.append(f"{name},{visit},{patient},{40 + visit},PA")
        lists[patient < tested].append(name)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    for file, names in zip(("train_val_list.txt", "test_list.txt"), lists, strict=True):
        (root / file).write_text("\n".join(names) + "\n")


def speed(folder: Path) -> dict[str, Any]:
    from marginlab.data.cxr14 import CXR14
    from marginlab.data.decoding import cores
    from marginlab.data.store import prepare

    for i in range(DIFFERENT):
        (folder / f"{i}.png").write_bytes(picture(i, SIDE))
    write_cxr14(folder / "raw", IMAGES, IMAGES // 4, 40, lambda i, path: os.link(folder / f"{i % DIFFERENT}.png", path))
    paths = sorted(str(p) for p in (folder / "raw" / "images").iterdir())
    parts = [paths[i :: cores()] for i in range(cores())]
    with multiprocessing.get_context("spawn").Pool(cores()) as pool:

        def ours() -> None:
            shutil.rmtree(folder / "out", ignore_errors=True)
            prepare(CXR14(), folder / "raw", folder / "out", name="bench", size=STORED, private=folder / "private")

        seconds = turns({"ours": ours, "bare": lambda: pool.map(bare, parts, chunksize=1)}, TURNS)
    return {**seconds, "cores": cores(), "bytes": (folder / "0.png").stat().st_size}


def many(folder: Path) -> dict[str, Any]:
    from marginlab.data.cxr14 import CXR14
    from marginlab.data.decoding import cores
    from marginlab.data.store import prepare

    pictures = [picture(i, TINY) for i in range(64)]
    write_cxr14(folder / "raw", MANY, PATIENTS, TESTED, lambda i, path: path.write_bytes(pictures[i % 64]))
    began = time.perf_counter()
    packed = prepare(CXR14(), folder / "raw", folder / "out", name="bench", size=TINY, private=folder / "private")
    seconds = time.perf_counter() - began
    largest = [1024 * resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"seconds": seconds, "bytes": largest[0] + cores() * largest[1], "images": len(packed.manifest)}


def opened(folder: Path) -> dict[str, Any]:
    import torch

    from marginlab.data.packed import PackedDataset

    began = time.perf_counter()
    packed = PackedDataset.open(folder / "out")
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    data, test = packed.fold(0), packed.test()
    parts = time.perf_counter() - began
    batch = torch.from_numpy(data.train.pixels[data.train.rows[:128]])
    lines = Path("/proc/self/status").read_text().splitlines()
    anonymous = next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return {"open": seconds, "parts": parts, "anonymous": anonymous, "seen": len(batch) + len(test)}


def verified(folder: Path) -> dict[str, Any]:
    from marginlab.data.verify import verify

    began = time.perf_counter()
    verify(folder / "out", private=folder / "private")
    return {"seconds": time.perf_counter() - began}


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        run = partial(apart, __file__)
        found = run("speed", folder)
        share = ratios(found["bare"], found["ours"])
        a, b = (IMAGES / float(np.median(found[name])) for name in ("ours", "bare"))
        yield Row(
            f"prepare {IMAGES} PNGs of {SIDE} x {SIDE} ({found['bytes'] / 1e3:.0f} kB) to {STORED} x {STORED}, images/s, "
            f"against a bare loop, {found['cores']} processes each",
            "0.85 of it",
            "{:.2f} ({:.2f} to {:.2f}); {:.0f} and {:.0f} images/s".format(*share, a, b),
            share[0] >= 0.85,
        )
    with tempfile.TemporaryDirectory() as folder:
        found = run("many", folder)
        yield Row(
            f"prepare {found['images']} files of {TINY} x {TINY}",
            "under 180 s",
            f"{found['seconds']:.0f} s",
            found["seconds"] < 180,
        )
        yield Row("its memory", "under 2 GB", f"{found['bytes'] / 1e9:.2f} GB", found["bytes"] < 2e9)
        found = run("open", folder)
        yield Row("open it", "under 2 s", f"{found['open']:.2f} s", found["open"] < 2)
        yield Row("make a fold and the test split", "", f"{found['parts']:.2f} s", None)
        yield Row(
            "anonymous memory then", "under 400 MB", f"{found['anonymous'] / 1e6:.0f} MB", found["anonymous"] < 400e6
        )
        yield Row("verify it", "", f"{run('verify', folder)['seconds']:.1f} s", None)


if __name__ == "__main__":
    what = {"speed": speed, "many": many, "open": opened, "verify": verified}[sys.argv[1]]
    print(json.dumps(what(Path(sys.argv[2]))))
