"""Rows of similarities on a GPU: the functions of :mod:`on_cpu` in torch, for all rows at once. They run on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from marginlab.retrieval.ordered import Order, Spread, one_after_another

# Positives per query from which a sort costs less than comparing once for each. Not measured: an estimate from the bytes that
# both move.
_FEW = 32


@contextmanager
def threads() -> Iterator[Spread]:
    yield one_after_another


def few(c: int, g: int, p: int) -> bool:
    return p <= _FEW * c


def values(sim: Tensor, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    return np.asarray(sim[_to(row, sim), _to(col, sim)].cpu().numpy())


def hide(sim: Tensor, row: np.ndarray, col: np.ndarray) -> None:
    sim[_to(row, sim), _to(col, sim)] = -torch.inf


def best(sim: Tensor) -> tuple[np.ndarray, np.ndarray]:
    column = sim.argmax(dim=1, keepdim=True)  # of equals the first, unlike max
    return column[:, 0].cpu().numpy(), sim.gather(1, column)[:, 0].cpu().numpy()


def before(sim: Tensor, row: np.ndarray, value: np.ndarray, split: np.ndarray) -> np.ndarray:
    slot, width = _slots(row)
    out = np.empty(len(row), dtype=np.int64)
    column = torch.arange(sim.shape[1], device=sim.device)
    for m in range(width):
        mine = slot == m
        rows = sim if mine.sum() == len(sim) else sim[_to(row[mine], sim)]
        v, i = _to(value[mine], sim)[:, None], _to(split[mine], sim)[:, None]
        out[mine] = ((rows > v) | ((rows == v) & (column < i))).sum(dim=1).cpu().numpy()
    return out


def keys(sim: Tensor, row: Tensor) -> Tensor:
    bits = (0.0 - sim).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (bits.long() << 32) | row


def before_by_sorting(sim: Tensor, row: np.ndarray, key: np.ndarray, first: int, spread: Spread) -> np.ndarray:
    slot, width = _slots(row)
    wanted = torch.zeros((len(sim), width), dtype=torch.int64, device=sim.device)
    wanted[_to(row, sim), _to(slot, sim)] = _to(key, sim)
    ordered = keys(sim, torch.arange(first, first + sim.shape[1], device=sim.device)).sort(dim=1).values
    return np.asarray(torch.searchsorted(ordered, wanted)[_to(row, sim), _to(slot, sim)].cpu().numpy())


def order(
    sim: Tensor,
    q_code: np.ndarray,
    g_code: np.ndarray,
    admissible: np.ndarray,
    level: np.ndarray | None,
    spread: Spread,
) -> Order:
    column = torch.sort(sim + 0.0, dim=1, descending=True, stable=True).indices  # + 0.0: a -0.0 equals 0.0
    own, n = _to(q_code, sim)[:, None], _to(admissible, sim)[:, None]
    code = _to(g_code, sim)[column]
    competes = torch.arange(sim.shape[1], device=sim.device) < n
    match = (code == own) & competes
    other = ~match & competes
    grade = None
    if level is not None:
        found = _to(level, sim)[own.long(), code.long()].masked_fill_(~competes, 0)
        grade = found.cpu().numpy()
    ranks = (match.nonzero()[:, 1] + 1).to(torch.int32)
    return Order(ranks.cpu().numpy(), _first(match, column), _first(other, column), grade)


def _first(true: Tensor, column: Tensor) -> np.ndarray:
    place = true.to(torch.uint8).argmax(dim=1, keepdim=True)
    return np.asarray(torch.where(true.any(dim=1), column.gather(1, place)[:, 0], -1).cpu().numpy())


def _slots(row: np.ndarray) -> tuple[np.ndarray, int]:
    """0, 1, ... within each run of an ascending ``row``, and the longest run's length."""
    slot = np.arange(len(row)) - np.searchsorted(row, row)
    return slot, int(slot.max(initial=-1)) + 1


def _to(x: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(like.device)
