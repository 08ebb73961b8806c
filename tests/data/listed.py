"""A reader of whatever images are in a folder, and ways to disturb ``prepare``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
from PIL import Image

from marginlab.data.decode import Decoder
from marginlab.data.packed import PackedDataset
from marginlab.data.raw import RawTable
from marginlab.data.store import prepare
from marginlab.values import stable_seed, value

SIZE = 8


@value
class Listed:
    """``<subject>_<months>.png``; subjects that begin with t are tested."""

    def read(self, root: Path) -> RawTable:
        names = sorted(p.name for p in root.iterdir())
        subjects = [n.split("_")[0] for n in names]
        months = [float(n.split("_")[1].removesuffix(".png")) for n in names]
        split = ["test" if s.startswith("t") else "train" for s in subjects]
        return RawTable(pl.DataFrame({"path": names, "subject": subjects, "split": split, "months": months}))


def write(root: Path, *subjects: str, months: tuple[int, ...] = (0, 12)) -> Path:
    root.mkdir(exist_ok=True)
    for s in subjects:
        for m in months:
            rng = np.random.default_rng(stable_seed(s, m))
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(root / f"{s}_{m}.png")
    return root


def people(first: int, last: int) -> list[str]:
    return [f"{'t' if i % 4 == 0 else 'a'}{i:03}" for i in range(first, last)]


def packed(root: Path, out: Path, **keywords: Any) -> PackedDataset:
    return prepare(Listed(), root, out, **{"name": "mine", "size": SIZE, **keywords})


def content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def stop(at: int) -> Callable[[int, int], None]:
    """A progress that ends it when so many images are done."""

    def progress(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    return progress


@contextmanager
def decoded() -> Iterator[list[str]]:
    """The paths that are decoded in this process meanwhile."""
    paths: list[str] = []
    plain = Decoder.__call__

    def noted(self: Decoder, task: tuple[str, bool]) -> np.ndarray | str:
        paths.append(task[0])
        return plain(self, task)

    with mock.patch.object(Decoder, "__call__", noted):
        yield paths


def info(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dataset.json").read_text()))
