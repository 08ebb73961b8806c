"""Embeddings before they are compared: rows of length 1, several models joined, and products in full precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marginlab.values import InputError

Embeddings = Tensor | np.ndarray


def unit(x: Embeddings) -> Tensor:
    """Rows scaled to length 1 in float32."""
    return F.normalize(torch.as_tensor(x).detach().float(), dim=1)


def checked_unit(x: Embeddings, name: str) -> Tensor:
    """:func:`unit`, after a look at what came in: [n, D], and every row of a finite length."""
    rows = torch.as_tensor(x).detach()
    if rows.ndim != 2:
        raise InputError(f"The {name} embeddings must be [rows, D], not {list(rows.shape)}.")
    if not torch.isfinite(torch.linalg.vector_norm(rows.float(), dim=1)).all():
        raise InputError(
            f"The {name} embeddings hold NaN or infinity, or are too long for float32; they have no place in a ranking: "
            "the training diverged."
        )
    return unit(rows)


def concatenate(embeddings: Sequence[Embeddings]) -> Tensor:
    """One embedding from those of n models: [n x (B, D)] to [B, n D], each scaled to length 1 and by 1 / sqrt(n).

    Its cosine is exactly the mean of the models' cosines: (1/n) sum_i <x_i, y_i>, which is how the published protocol
    joins fold models for mAP and CMC (it averages distance matrices, d = 2 - 2 cos). The *mean* of the embeddings is not
    an ensemble: every training turns its space its own way, so it adds up coordinates that have nothing to do with each
    other. The models may differ in D.
    """
    if not embeddings:
        raise InputError("concatenate needs the embeddings of at least one model.")
    rows = sorted({len(e) for e in embeddings})
    if len(rows) > 1:
        raise InputError(f"concatenate needs the same images from every model, not {rows} rows.")
    return torch.cat([unit(e) for e in embeddings], dim=1).mul_(len(embeddings) ** -0.5)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 products as such, whatever the training around has chosen: TF32 and bfloat16 would reorder neighbours."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
