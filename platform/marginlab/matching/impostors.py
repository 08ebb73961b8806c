"""How often two images of different people are as alike as these two: the rates beside every match.

They are counted on the validation images of the champion's own run, whose people it was not trained on (its best epoch was
chosen on them). An *impostor pair* is two images of different subjects; a *genuine pair* two images of one label from
different visits (where a label is a person with two knees, also a left and a right one).

What a rate does **not** cover: another scanner, hospital, population, age or way of preparing images; people who are kin;
gaps in time that the validation images lack. It is the rate of *one* comparison: in a gallery of n strangers, up to n times as
many are as alike. Measured on phantoms it says nothing about patients at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from marginlab.retrieval import Embeddings, unit
from marginlab.retrieval.embeddings import full_precision

BINS = 2**20  # of the similarities -1..1: each is 2e-6 wide
EXACT, STEP = (
    50,
    1.08,
)  # every count up to the first is in the table, above each is at most so many times the one before
BLOCK = 512  # rows of similarities at a time
DOUBT = 0.05  # an upper bound holds with 95% confidence


@dataclass(frozen=True)
class Tail:
    """Which share of pairs lies beyond a similarity, as a table: ``count[i]`` pairs are at or beyond ``sim[i]``.

    Beyond means at least as similar or, of genuine pairs, at most. Between two entries the larger count is given: shares are
    exact up to one bin where they are of few pairs, and at most 8% too large where they are of many.
    """

    pairs: int
    subjects: int  # that the pairs are of
    effective: float  # as many subjects of equally many images would say as much (Kish)
    most: float | None  # the extreme similarity itself; None where there is no pair
    sim: tuple[float, ...]
    count: tuple[int, ...]  # ascending
    beyond: Literal["above", "below"] = "above"

    @classmethod
    def of(cls, histogram: np.ndarray, most: float, weight: np.ndarray, beyond: Literal["above", "below"]) -> Tail:
        """From how many pairs are in each of the ``BINS`` bins; ``weight``: images of each subject."""
        total = int(histogram.sum())
        effective = float(weight.sum() ** 2 / max((weight**2).sum(), 1))
        if not total:
            return cls(0, len(weight), effective, None, (), (), beyond)
        upward = beyond == "above"
        reached = np.cumsum(histogram[::-1] if upward else histogram)
        steps = math.ceil(math.log(max(total / EXACT, 1), STEP))
        grid = [*range(1, EXACT + 1), *(round(EXACT * STEP**k) for k in range(1, steps)), total]
        bins = np.searchsorted(reached, [k for k in grid if k <= total])  # the first that reaches as many
        bins = np.unique(np.concatenate([bins, np.maximum(bins - 1, 0)]))  # and the one before it, which does not
        edges = 1 - (bins + 1) * (2 / BINS) if upward else -1 + (bins + 1) * (2 / BINS)
        return cls(total, len(weight), effective, most, tuple(edges.tolist()), tuple(reached[bins].tolist()), beyond)

    def share(self, sim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The share of pairs at or beyond each similarity, float64 [n], and whether none is, bool [n].

        Where none is, the share is below 1 / pairs, which is what stands in the first. NaN where there are no pairs.
        """
        sim = np.asarray(sim, dtype=np.float64)
        if self.most is None:
            return np.full(sim.shape, np.nan), np.zeros(sim.shape, dtype=bool)
        turn = 1 if self.beyond == "above" else -1
        entry = np.searchsorted(-turn * np.asarray(self.sim), -turn * sim, side="left")
        counts = np.asarray(self.count)[np.minimum(entry, len(self.count) - 1)]
        none = turn * sim > turn * self.most
        return np.where(none, 1, counts) / self.pairs, none

    def upper(self, share: np.ndarray, none: np.ndarray) -> np.ndarray:
        """An upper bound of each share with 95% confidence, had other people been drawn: float64 [n].

        Pairs that share a person are no independent evidence: n people hold n / 2 pairs that are. The bound is Hoeffding's
        for such means of pairs (1963, sections 2 and 5), with the effective number of people; where no pair is so alike it
        is the rule of three, about 3 / (n / 2). It is conservative, and holds for a similarity that was chosen beforehand.
        """
        independent = math.floor(self.effective / 2)
        if not independent:
            return np.where(np.isnan(share), np.nan, 1.0)
        seen = np.where(none, 0.0, share)
        low, high = seen, np.ones_like(seen)
        for _ in range(60):
            middle = (low + high) / 2
            inside = independent * _divergence(seen, middle) <= -math.log(DOUBT)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return np.where(np.isnan(share), np.nan, high)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sim": list(self.sim), "count": list(self.count)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tail:
        return cls(**{**data, "sim": tuple(data["sim"]), "count": tuple(data["count"])})


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler, of coins that fall with probabilities p and q."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0) + np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0)


@dataclass(frozen=True)
class Rates:
    """Of one network: how alike the images of different people are, and those of the same."""

    impostor: Tail  # at least as similar
    genuine: Tail  # at most as similar: what would be missed, were this similarity the threshold

    @classmethod
    def of(cls, embeddings: Embeddings, subject: np.ndarray, label: np.ndarray, visit: np.ndarray) -> Rates:
        """Count all unordered pairs of n images: embeddings [n, D]; subject, label and visit int64 [n]."""
        x = unit(embeddings)
        who, same, when = (torch.from_numpy(np.array(a)) for a in (subject, label, visit))
        strangers = _Counted(lambda i, j: who[i, None] != who[None, j])
        matches = _Counted(lambda i, j: (same[i, None] == same[None, j]) & (when[i, None] != when[None, j]))
        with full_precision(x.device):
            for start in range(0, len(x), BLOCK):
                i, j = slice(start, start + BLOCK), slice(start, None)
                sim = (x[i] @ x[j].T).clamp_(-1, 1)
                later = torch.ones_like(sim, dtype=torch.bool).triu_(1)
                strangers.add(sim, later, i, j)
                matches.add(sim, later, i, j)
        images = np.unique(np.asarray(subject), return_counts=True)[1]
        paired = np.asarray(subject)[_paired(label, visit)]
        return cls(
            Tail.of(strangers.histogram, strangers.high, images, "above"),
            Tail.of(matches.histogram, matches.low, np.unique(paired, return_counts=True)[1], "below"),
        )

    def to_json(self) -> dict[str, Any]:
        return {"impostor": self.impostor.to_json(), "genuine": self.genuine.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Rates:
        return cls(Tail.from_json(data["impostor"]), Tail.from_json(data["genuine"]))


def _paired(label: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Which images have a genuine pair, bool [n]: their label has another visit."""
    pairs = np.unique(np.stack([label, visit], axis=1), axis=0)
    own, visits = np.unique(pairs[:, 0], return_counts=True)
    return np.isin(label, own[visits > 1])


class _Counted:
    """A histogram of the similarities of some pairs."""

    def __init__(self, wanted: Callable[[slice, slice], Tensor]) -> None:
        self.wanted = wanted
        self.histogram = np.zeros(BINS, dtype=np.int64)
        self.low, self.high = math.inf, -math.inf

    def add(self, sim: Tensor, later: Tensor, i: slice, j: slice) -> None:
        values = sim[self.wanted(i, j) & later].double()
        if not len(values):
            return
        place = ((values + 1) * (BINS / 2)).long().clamp_(max=BINS - 1)
        self.histogram += torch.bincount(place, minlength=BINS).numpy()
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
