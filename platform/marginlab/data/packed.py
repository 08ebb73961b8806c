"""A packed dataset, opened: what training and tests see of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marginlab.data import manifest as mf
from marginlab.data.splits import FOLDS
from marginlab.data.subset import Data, Subset
from marginlab.values import InputError

FORMAT = 1
WITNESS = "dataset.json"  # it has the fingerprint of all
FILES = (WITNESS, "manifest.parquet", "images.npy", "report.json")
FIELDS = ("name", "label", "size", "channels", "mean", "std", "fingerprint", "images", "phantom")


@dataclass(frozen=True)
class PackedDataset:
    folder: Path
    info: dict[str, Any]  # dataset.json
    manifest: pl.DataFrame
    pixels: np.ndarray  # uint8 [N, C, size, size], memory-mapped

    @classmethod
    def open(cls, folder: Path | str) -> PackedDataset:
        """Open a folder that ``prepare`` wrote; reads no pixels."""
        folder = Path(folder)
        for name in FILES:
            if not (folder / name).is_file():
                raise InputError(
                    f"{folder}: the file {name} is missing, so this is no packed dataset; prepare it again."
                )
        info = _info(folder / "dataset.json")
        try:
            manifest = pl.read_parquet(folder / "manifest.parquet")
        except pl.exceptions.PolarsError:
            raise InputError(
                f"{folder / 'manifest.parquet'}: the file is damaged; prepare the dataset again."
            ) from None
        try:
            pixels = np.load(folder / "images.npy", mmap_mode="r")
        except (ValueError, EOFError, OSError):
            raise InputError(f"{folder / 'images.npy'}: the file is cut short or damaged; prepare it again.") from None
        mf.validate(manifest, str(folder / "manifest.parquet"), info.get("leak"))
        expected = (info["images"], info["channels"], info["size"], info["size"])
        if len(manifest) != info["images"] or pixels.shape != expected or pixels.dtype != np.uint8:
            raise InputError(
                f"{folder}: images.npy is {pixels.dtype} {pixels.shape} and manifest.parquet has {len(manifest)} rows, "
                f"but dataset.json says uint8 {expected}; these files do not belong together, prepare it again."
            )
        return cls(folder, info, manifest, pixels)

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def fingerprint(self) -> str:
        return str(self.info["fingerprint"])

    @property
    def phantom(self) -> str | None:
        """Version of the generator if the images are synthetic."""
        phantom: str | None = self.info["phantom"]
        return phantom

    @property
    def channels(self) -> int:
        return int(self.info["channels"])

    @property
    def size(self) -> int:
        """Pixels per side, as stored."""
        return int(self.info["size"])

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of pixel / 255."""
        return tuple(self.info["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(self.info["std"])

    def require(self, fingerprint: str) -> None:
        """Refuse to serve a run that was made for another dataset."""
        if fingerprint != self.fingerprint:
            raise InputError(
                f"{self.folder} holds the dataset {self.fingerprint}, but the run was made for {fingerprint}: "
                "prepare that dataset again, or give the study a new name."
            )

    def fold(self, index: int) -> Data:
        """What one training may see: fold ``index`` validates, the other folds train, the test split is absent."""
        if index not in range(FOLDS):
            raise InputError(f"The dataset {self.name} has the folds 0 to {FOLDS - 1}; there is no fold {index}.")
        train = self._subset(pl.col("fold") != index)
        validation = self._subset(pl.col("fold") == index)
        return Data(train, validation, self.mean, self.std, self.fingerprint, self.channels, self.size)

    @property
    def graded(self) -> bool:
        """Whether grades are to be found, in the images that were trained on, rather than people."""
        return bool(self.info["label"] == "grade")

    def test(self) -> Subset:
        """The gallery and the queries of the test protocol. Where grades are to be found, the gallery is the training split."""
        return self._subset(pl.lit(True) if self.graded else pl.col("split") == "test")

    def _subset(self, condition: pl.Expr) -> Subset:
        rows = self.manifest.filter(condition)
        label = mf.codes(rows["label"])
        months = rows["months"].fill_null(float("nan")).to_numpy().copy()
        return Subset(
            pixels=self.pixels,
            rows=rows["row"].to_numpy().copy(),
            label=label,
            visit=mf.codes(rows.select("label", *self._one_visit).rows() if self.graded else _visits(label, months)),
            months=months,
            gallery=(rows["role"] == "gallery").to_numpy().copy(),
            query=(rows["role"] == "query").to_numpy().copy(),
            subject=mf.codes(rows["subject"]),
            graded=self.graded,
        )

    @property
    def _one_visit(self) -> list[str]:
        """Where grades are to be found, a fellow eye is no answer; but where a split leaks as published, it is one, as published."""
        return ["row"] if self.info.get("leak") else ["subject"]

    def require_queries(self) -> None:
        """Refuse a dataset that a study could train on for days and then say nothing about."""
        test = self.test()
        if not (test.gallery.any() and test.query.any()):
            raise InputError(
                f"Dataset {self.info['name']!r}: its test split has {int(test.gallery.sum())} first visits and "
                f"{int(test.query.sum())} later ones, so nothing can be looked for: give the months (or roles) of its images, "
                "or look for grades with label='grade'."
            )

    def require_identities(self, count: int, what: str) -> None:
        """Refuse batches that no fold can fill. ``what``: whose batches they are, for the sentence."""
        folds = [self.manifest.filter(pl.col("fold") != index)["label"].n_unique() for index in range(FOLDS)]
        if count > min(folds):
            raise InputError(
                f"{what}: a batch holds {count} identities (batch_size / per_identity), but dataset {self.name!r} has "
                f"{min(folds)} to train on: lower batch_size, raise per_identity, or draw images at random with per_identity=None."
            )

    def describe(self) -> dict[str, Any]:
        """Counts for a summary; no identifiers."""
        parts = {
            "train": self._counts(pl.col("split") == "train"),
            "test": self._counts(pl.col("split") == "test"),
        }
        folds = [self._counts(pl.col("fold") == i) for i in range(FOLDS)]
        keys = ("name", "phantom", "label", "size", "channels", "fingerprint")
        return {**{k: self.info[k] for k in keys}, **self._counts(pl.lit(True)), "splits": parts, "folds": folds}

    def _counts(self, condition: pl.Expr) -> dict[str, Any]:
        rows, subset = self.manifest.filter(condition), self._subset(condition)
        return {
            "images": len(rows),
            "subjects": rows["subject"].n_unique(),
            "labels": rows["label"].n_unique(),
            "visits": rows.select("subject", "months").n_unique(),
            "gallery": int(subset.gallery.sum()),
            "queries": int(subset.query.sum()),
            "horizons": subset.horizons(),
        }


def _visits(label: np.ndarray, months: np.ndarray) -> list[tuple[int, Any]]:
    """Label and month; an image of unknown month is a visit of its own, so that only it excludes itself."""
    return [
        (int(k), float(m) if np.isfinite(m) else f"image {i}")
        for i, (k, m) in enumerate(zip(label, months, strict=True))
    ]


def _info(path: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise InputError(f"{path}: the file is damaged; prepare the dataset again.") from None
    version = info.get("format") if isinstance(info, dict) else None
    if version != FORMAT:
        raise InputError(
            f"{path}: the format is {version}, this MarginLab reads {FORMAT}; prepare the dataset again with this version."
        )
    for name in FIELDS:
        if name not in info:
            raise InputError(f"{path}: the field {name!r} is missing; prepare the dataset again.")
    return info
