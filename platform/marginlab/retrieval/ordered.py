"""What the rows of a block give, on whatever device they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Spread = Callable[[Callable[[int], None], Iterable[int]], Any]  # calls a function for each of the integers, in parallel


def one_after_another(do: Callable[[int], None], inputs: Iterable[int]) -> None:
    for x in inputs:
        do(x)


@dataclass(frozen=True, eq=False)
class Order:
    """The places that count, of ``c`` queries with ``P`` positives."""

    ranks: np.ndarray  # int32 [P], of the positives: query after query, ascending
    right: np.ndarray  # int64 [c], gallery row of the nearest positive, -1 where there is none
    wrong: np.ndarray  # int64 [c], of the nearest other item that is not excluded
    grade: np.ndarray | None = None  # uint8 [c, G], the grade of the item at each rank; 0 beyond the admissible ones
