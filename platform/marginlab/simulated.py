"""Simulated trials: recorded learning curves are replayed instead of training, so that searches of thousands of trials take minutes.

``Dataset("oai", curves=FOLDER)`` names the folder that ``marginlab export`` made of a finished study. Every run on that dataset
then takes its validation figures, epoch by epoch, from the study's complete trials of the arm of the same name. All else is as it
is for a run that trains: Tune, the registrar, the run folder, MLflow, the report. What is not there: networks, embeddings, and
with them test figures and champions.

Between the recorded configurations the curve is interpolated: of the 2 ** n nearest ones (n searched numbers, each scaled by its
recorded range), weighted by the inverse of the squared distance; what is searched and no number has to be equal. To this is added
what one recorded run of those differed from the mean of its configuration by, drawn by the run's seed: the noise between seeds.
Folds are not told apart; configurations that were trained once are left out where others were trained again. The seconds of the
epochs are replayed with the figures: they are what training would have taken.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import torch
from torch import Tensor

from marginlab import distributed
from marginlab.training import Run, TrainingFailed
from marginlab.values import InputError, stable_seed

FILES = ("runs.parquet", "epochs.parquet")
COLUMNS = {
    "runs": ("id", "kind", "dataset", "arm", "params", "state", "phantom"),
    "epochs": ("id", "epoch"),
}
_OWN = (
    "time/checkpoint_s",
    "time/images_per_s",
)  # the run that replays writes checkpoints itself; the other is no time


@dataclass(frozen=True)
class Replayed:
    """What there is to keep of an epoch that was not trained: its number."""

    epoch: int
    embeddings: None = None
    subset: None = None

    def weights(self) -> dict[str, Tensor]:
        return {}

    def tensors(self) -> dict[str, Tensor]:
        return {"epoch": torch.tensor(self.epoch)}


@dataclass(frozen=True, eq=False)
class _Arm:
    """Its recorded configurations (K) and runs (R), epochs 0 to E, figures M."""

    names: tuple[str, ...]  # of the numbers that were searched
    points: np.ndarray  # [K, n]
    others: list[dict[str, Any]]  # of each configuration, what is no number
    means: np.ndarray  # [K, E + 1, M], over its runs
    noise: np.ndarray  # [R, E + 1, M], what a run differs from the mean by, as large as between single runs
    of: np.ndarray  # [R], the configuration of each

    def curve(self, params: dict[str, Any], seed: int | None) -> np.ndarray | None:
        """[E + 1, M]; None where what is no number was never recorded so. Without a seed, what is expected of all."""
        others, numbers = _split(params)
        alike = np.array([all(o.get(k, v) == v for k, v in others.items()) for o in self.others])
        if not alike.any():
            return None
        where = np.flatnonzero(alike)
        at = np.array([numbers.get(name, np.nan) for name in self.names])
        span = np.ptp(self.points, axis=0)
        apart = np.nan_to_num((self.points[where] - at) / np.where(span > 0, span, 1.0)) ** 2
        distance = apart.sum(1)
        near = np.argsort(distance, kind="stable")[: 2 ** len(self.names)]
        weights = 1 / np.maximum(distance[near], 1e-12)
        mean = np.tensordot(weights / weights.sum(), self.means[where[near]], 1)
        if seed is None:
            return np.asarray(mean)
        drawn = np.flatnonzero(np.isin(self.of, where[near]))
        noise: np.ndarray = self.noise[drawn[stable_seed("simulated", seed) % len(drawn)]]
        return np.asarray(mean + noise)


@dataclass(frozen=True, eq=False)
class Curves:
    """Recorded learning curves where a run would find images. They answer as a packed dataset does where both are asked."""

    folder: Path
    fingerprint: str  # of the files' bytes
    runs: pl.DataFrame  # complete trials
    epochs: pl.DataFrame  # id, epoch and the figures that are replayed

    @staticmethod
    def there(folder: Path) -> bool:
        return all((folder / name).is_file() for name in FILES)

    @classmethod
    def open(cls, folder: Path) -> Curves:
        """
        Raises:
            InputError: the folder holds no export with complete trials.
        """
        if not cls.there(folder):
            raise InputError(
                f"There are no recorded curves in {folder}: make them of a finished study with marginlab export STUDY --out {folder}."
            )
        return _opened(folder, tuple((folder / name).stat().st_mtime_ns for name in FILES))

    @property
    def phantom(self) -> str:
        """Says that the recorded images were synthetic; empty where they were not."""
        return "recorded on phantoms" if self.runs["phantom"].any() else ""

    @property
    def figures(self) -> list[str]:
        return [c for c in self.epochs.columns if c not in ("id", "epoch")]

    @cached_property
    def _arms(self) -> dict[tuple[str, str], _Arm]:
        """By dataset and arm."""
        groups = self.runs.partition_by("dataset", "arm", maintain_order=True)
        return {(g["dataset"][0], g["arm"][0]): _arm(g, self.epochs, self.figures) for g in groups}

    def require(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise InputError(f"{self.folder} holds other curves than those that the study began with.")

    def require_queries(self) -> None:
        """Whoever recorded had them."""

    def require_identities(self, identities: int, who: str) -> None:
        """Likewise."""

    def check(self, dataset: str, arms: list[str], epochs: int, objective: str) -> None:
        """Refuse a study that asks for what was not recorded."""
        if objective not in self.figures:
            raise InputError(
                f"The curves in {self.folder} do not have {objective}; they have {', '.join(self.figures)}."
            )
        for arm in arms:
            recorded = self._arms.get((dataset, arm))
            if recorded is None:
                known = ", ".join(f"{a} on {d}" for d, a in self._arms)
                raise InputError(f"The curves in {self.folder} have no arm {arm!r} on {dataset!r}; they have {known}.")
            if recorded.means.shape[1] <= epochs:
                raise InputError(
                    f"The curves of arm {arm!r} in {self.folder} end at epoch {recorded.means.shape[1] - 1}, and the study asks for "
                    f"{epochs}: record longer ones, or lower max_epochs and Confirmation.epochs."
                )

    def expected(self, dataset: str, arm: str, params: dict[str, Any], figure: str, epoch: int) -> float:
        """What a configuration is worth, which in a simulation can be known; NaN where it was not recorded."""
        curve = self._arms[dataset, arm].curve(params, None)
        return float("nan") if curve is None else float(curve[epoch, self.figures.index(figure)])

    def replay(
        self,
        run: Run,
        labels: dict[str, Any],
        report: Callable[[int, dict[str, float], Replayed], bool],
        resume: dict[str, Tensor] | None,
        pace: float = 0.0,
    ) -> None:
        """``training.fit`` without training: a report per epoch from the first one that is not there.

        Args:
            labels: of the run folder: the arm and the parameters.
            resume: as ``fit`` has it.
            pace: so many of the recorded seconds are waited for each.
        """
        recorded = self._arms.get((labels["dataset"], labels["arm"]))
        if recorded is None:
            _unknown(f"arm {labels['arm']!r} on {labels['dataset']!r}")
        curve = recorded.curve(labels["params"], run.seed)
        if curve is None:
            _unknown(f"{labels['params']} of arm {labels['arm']!r}")
        for epoch in range(0 if resume is None else int(resume["epoch"]) + 1, run.training.epochs + 1):
            if epoch >= len(curve):
                _unknown(f"epoch {epoch}")
            row = dict(zip(self.figures, curve[epoch].tolist(), strict=True))
            row = {k: _bounded(k, v) for k, v in row.items() if np.isfinite(v)}
            time.sleep(pace * sum(v for k, v in row.items() if k.startswith("time/")))
            go_on = report(epoch, row, Replayed(epoch)) if distributed.rank() == 0 else True
            if not distributed.broadcast_flag(go_on):
                return


def _unknown(what: str) -> NoReturn:
    raise TrainingFailed(f"There is no recorded curve for {what}.")


def _bounded(figure: str, v: float) -> float:
    """Noise leads out of what a figure can be."""
    return min(max(v, 0.0), 1.0) if figure.startswith("val/") else max(v, 0.0)


@lru_cache(maxsize=8)
def _opened(folder: Path, written: tuple[int, ...]) -> Curves:
    digest = hashlib.sha256()
    frames = {}
    for name in FILES:
        path = folder / name
        digest.update(path.read_bytes())
        try:
            frames[path.stem] = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as e:
            raise InputError(f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}") from None
        missing = [c for c in COLUMNS[path.stem] if c not in frames[path.stem].columns]
        if missing:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}: make it anew with marginlab export.")
    runs = (
        frames["runs"]
        .filter(pl.col("kind") == "trial", pl.col("state") == "complete")
        .unique("id", maintain_order=True)
    )
    if runs.is_empty():
        raise InputError(f"{folder / FILES[0]} has no complete trial: there is nothing to replay.")
    epochs = frames["epochs"].filter(pl.col("id").is_in(runs["id"].implode()))
    replayed = [c for c in epochs.columns if c.startswith(("val/", "time/")) and c not in _OWN]
    return Curves(folder, f"curves-{digest.hexdigest()[:16]}", runs, epochs.select("id", "epoch", *sorted(replayed)))


def _arm(runs: pl.DataFrame, epochs: pl.DataFrame, figures: list[str]) -> _Arm:
    """Runs that were recorded for longer than others are cut; configurations trained once are left out where others were
    trained again, because what luck gave them would count as theirs."""
    again = runs.filter(pl.len().over("params") > 1)
    runs = again if len(again) else runs
    by_run = {
        part["id"][0]: part.sort("epoch").select(figures).to_numpy()
        for part in epochs.filter(pl.col("id").is_in(runs["id"].implode())).partition_by("id")
    }
    length = min(len(curve) for curve in by_run.values())
    places: dict[str, int] = {}
    of = np.array([places.setdefault(p, len(places)) for p in runs["params"]])
    whole = np.stack([by_run[i][:length] for i in runs["id"]]).astype(float)
    means = np.stack([whole[of == k].mean(0) for k in range(len(places))])
    size = np.bincount(of)[of]  # the runs of each run's configuration
    # A mean over n runs takes a share of 1 / n from what each differs by.
    noise = (whole - means[of]) * np.sqrt(size / np.maximum(size - 1, 1))[:, None, None]
    split = [_split(json.loads(p)) for p in places]
    names = tuple(sorted(set().union(*(numbers for _, numbers in split))))
    points = np.array([[numbers.get(n, 0.0) for n in names] for _, numbers in split]).reshape(len(places), len(names))
    return _Arm(names, points, [others for others, _ in split], means, np.nan_to_num(noise), of)


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """What is no number, and the numbers."""
    numbers = {k: float(v) for k, v in params.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {k: v for k, v in params.items() if k not in numbers}, numbers
