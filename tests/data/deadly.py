"""A decoder that ends its process."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from marginlab.data.decode import Decoder


@dataclass(frozen=True)
class Deadly(Decoder):
    def __call__(self, task: tuple[str, bool]) -> np.ndarray | str:
        if task[0].startswith("deadly"):
            os._exit(9)
        return super().__call__(task)
