"""What ``fit`` sees of a dataset: pixels and integers. Numpy alone, so that it reaches any process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LABELS = ("subject", "subject-side", "grade")  # what a network may be taught to recognise


@dataclass(frozen=True)
class Subset:
    """The images of a packed dataset that serve one purpose (training, validation or test); n images, L labels."""

    pixels: np.ndarray  # uint8 [N, C, H, W], memory-mapped: the whole store
    rows: np.ndarray  # int64 [n], rows of `pixels`
    label: np.ndarray  # int64 [n], 0 .. L-1
    visit: np.ndarray  # int64 [n], equal for images of one label taken at one visit: they are no answer to each other
    months: np.ndarray  # float32 [n], months since the subject's first visit, NaN where unknown
    gallery: np.ndarray  # bool [n], in the gallery of the test protocol (first visit)
    query: np.ndarray  # bool [n], a query of the test protocol (a later visit)
    subject: np.ndarray | None = None  # int64 [n], 0 .. : whose image it is; a label may be one side of a subject
    # Labels are grades, which many subjects share: a visit is then whatever one subject has of one grade, the gallery is
    # the training split, and the test split asks.
    graded: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def horizons(self) -> list[int]:
        """The months at which there are queries, ascending."""
        months = self.months[self.query & np.isfinite(self.months)]
        return sorted({int(m) for m in np.round(months)})


@dataclass(frozen=True)
class Data:
    """What one training may see. The test split is not part of it."""

    train: Subset
    validation: Subset
    mean: tuple[float, ...]  # per channel, of pixel / 255
    std: tuple[float, ...]
    fingerprint: str
    channels: int
    size: int  # pixels per side, as stored
