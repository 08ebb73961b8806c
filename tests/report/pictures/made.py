"""Models and a study with known answers. On the unit circle a similarity is the cosine of an angle, so every rank is known.

Gallery (first visits): subject 0 at 0 degrees, 1 at 40, 2 at 90. Queries: subject 0 at 10 degrees and 12 months, 1 at 15 and 24,
2 at 80 and 36. So query 1 finds subject 0 first (15 degrees away), the right one second (25); the others find the right one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from marginlab.data import manifest as mf
from marginlab.data.packed import PackedDataset
from marginlab.losses import Triplet
from marginlab.margins import FixedMargin
from marginlab.report.pictures.confirmed import Model, Seed
from marginlab.results import Results
from marginlab.space import choice, loguniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training
from tests.report.synthetic import EPOCHS, Synthetic, params_of, write_test_embeddings

GALLERY = [0.0, 40.0, 90.0]
QUERIES = [10.0, 15.0, 80.0]
RIGHT = [5.0, 45.0, 85.0]  # queries that all find their own first
ROWS = np.array([10, 11, 20, 21, 30, 31])  # gallery and query image of each subject
LABEL = np.array([0, 0, 1, 1, 2, 2])
ARMS = ("one", "two")
MONTHS = np.array([0, 12, 0, 24, 0, 36], dtype=np.float32)


def circle(queries: list[float] = QUERIES, gallery: list[float] = GALLERY) -> np.ndarray:
    """Embeddings [6, 2] in the order of ROWS."""
    angle = np.deg2rad(np.stack([gallery, queries], axis=1).reshape(-1))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def model(arm: str = "one", queries: list[float] = QUERIES) -> Model:
    seed = Seed(arm, 0, 0, (Path("a"),))
    query, gallery = np.flatnonzero(MONTHS > 0), np.flatnonzero(MONTHS == 0)
    return Model(seed, ROWS, LABEL, MONTHS, torch.from_numpy(circle(queries)), query, gallery, 1)


def small_study(seeds: int = 2, folds: int = 1, phantom: bool = True, **search: int) -> Study:
    source = {"phantom": {"subjects": 3}} if phantom else {"root": "/raw/oai"}
    space = {"margin.epsilon": choice([0.25, 0.5, 0.75]), "lr": loguniform(1e-5, 1e-1)}
    return Study(
        name="demo",
        datasets=[Dataset("oai", **source)],
        arms=[Arm(a, Training(loss=Triplet(), margin=FixedMargin(beta=None)), space) for a in ARMS],
        search=Search(epochs_budget=12, max_epochs=EPOCHS, **search),
        confirmation=Confirmation(seeds=seeds, folds=folds),
        comparison=Comparison(contrast=("one", "two")),
    )


def write_study(workspace: Path, study: Study, without: tuple[str, ...] = ()) -> Results:
    """Confirmation runs with the embeddings of validation and test; arm two finds every right one. None of ``without``."""
    made = Synthetic(workspace / "studies" / "demo", study, {("oai", arm): [0.9] * 9 for arm in ARMS})
    for key in made.plan.searches():
        made.trials(key)
        for task in made.plan.confirmations(key, params_of(key.arm, 1)):
            if key.arm not in without:
                path = made.confirmation(task)
                write_test_embeddings(path, ROWS, LABEL, MONTHS, circle() if key.arm == "one" else circle(RIGHT))
                test = path / "embeddings" / "test.parquet"
                test.with_name("validation.parquet").write_bytes(test.read_bytes())
    made.summary()
    return Results.open(made.folder)


def write_packed(workspace: Path, phantom: str | None, channels: int = 1, size: int = 8) -> PackedDataset:
    """A packed dataset of 32 images, the study's by its fingerprint; image r is grey (or red, green, blue) 7 r."""
    folder, n = workspace / "data" / "oai-0000000000", 32
    folder.mkdir(parents=True)
    shade = (7 * np.arange(n)).astype(np.uint8)[:, None, None, None]
    np.save(folder / "images.npy", np.broadcast_to(shade, (n, channels, size, size)))
    values = {"row": range(n), "subject": ["x"] * n, "label": ["x"] * n, "split": ["test"] * n}
    columns = {**dict.fromkeys(mf.SCHEMA, [None] * n), **values, "role": ["other"] * n, "channels": [channels] * n}
    pl.DataFrame(columns, schema=mf.SCHEMA).write_parquet(folder / "manifest.parquet")
    info = {"name": "oai", "label": "subject", "size": size, "channels": channels, "mean": [0.5], "std": [0.5]}
    info |= {"fingerprint": f"{'oai':0<16}", "images": n, "phantom": phantom, "format": 1}
    (folder / "dataset.json").write_text(json.dumps(info))
    (folder / "report.json").write_text("{}")
    return PackedDataset.open(folder)
