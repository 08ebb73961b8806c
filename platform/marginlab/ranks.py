"""Where the positives of each query stand in its ranking: exact, by blocks of queries, without ranking everything.

Only the positives' places are wanted, and a positive's place is 1 + the number of admissible items that are nearer. It
is found by comparing where the positives are few, and by one sort of the bare similarities where they are many: bare
values sort several times faster than (value, row) pairs, and only a query with a tie needs the rows. A positive's
similarity is read from the very product it is compared with, because the same dot product computed elsewhere may
differ in its last bit. Shapes: ``c`` queries of a block, ``G`` gallery, ``M`` the most same-label items of a query in
the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from marginlab.values import InputError

_BLOCK_BYTES = {"cpu": 2**25, "cuda": 2**28}  # of similarities: the processor's cache, and a small part of a GPU
_COUNT_AT_MOST = {"cpu": 3, "cuda": 8}  # positives; measured: where comparing this often costs as much as one sort


def positive_ranks(
    q: Tensor,
    g: Tensor,
    q_label: np.ndarray,
    g_label: np.ndarray,
    q_visit: np.ndarray | None,
    g_visit: np.ndarray | None,
    *,
    chunk: int | None,
    by: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks [P] of the positives, query after query and ascending, with their number and that of excluded items [Q].

    ``q`` [Q, D] and ``g`` [G, D] are unit float32. Same label and same visit: excluded. Same label otherwise: positive.
    """
    if by not in ("auto", "count", "sort"):
        raise InputError(f"Ranks are found by 'auto', 'count' or 'sort', not {by!r}.")
    q_label, g_label = np.asarray(q_label), np.asarray(g_label)
    order = np.argsort(g_label, kind="stable")  # items of one label lie together, in row order
    start = np.searchsorted(g_label[order], q_label, side="left")
    same = np.searchsorted(g_label[order], q_label, side="right") - start
    excluded = np.zeros(len(q), dtype=np.int64)
    if q_visit is not None and g_visit is not None:
        excluded = _equal_pairs(q_label, np.asarray(q_visit), g_label, np.asarray(g_visit))
    count = same - excluded
    offset = np.concatenate([[0], np.cumsum(count)])
    ranks = np.empty(offset[-1], dtype=np.int32)
    kind = "cuda" if q.is_cuda else "cpu"
    chunk = chunk or max(1, _BLOCK_BYTES[kind] // (4 * max(1, len(g))))
    matched = np.flatnonzero(count)
    matched = matched[np.argsort(same[matched], kind="stable")]  # like with like: M is then little more than needed
    for i in range(0, len(matched), chunk):
        own = matched[i : i + chunk]
        slot = np.arange(same[own].max())
        index = order[np.minimum(start[own, None] + slot, len(g) - 1)]  # [c, M]
        valid = slot < same[own, None]
        positive = valid
        if q_visit is not None and g_visit is not None:
            positive = valid & (np.asarray(g_visit)[index] != np.asarray(q_visit)[own, None])
        few = same[own].max() <= _COUNT_AT_MOST[kind] if by == "auto" else by == "count"
        with _full_precision(q.device):
            sim = q[torch.from_numpy(own).to(q.device)] @ g.T
        where, right, out = (torch.from_numpy(a).to(q.device) for a in (index, positive, valid & ~positive))
        rank = _block(sim, where, right, out, few)
        place = slot < count[own, None]
        ranks[(offset[own, None] + slot)[place]] = rank.cpu().numpy()[place]
    return ranks, count, excluded


def _block(sim: Tensor, index: Tensor, positive: Tensor, excluded: Tensor, few: bool) -> Tensor:
    """Ascending ranks of the positives, one row per query; what follows them in the row means nothing: [c, M].

    ``sim`` [c, G] is overwritten; ``index`` [c, M] are the same-label columns, ``positive`` and ``excluded`` say which
    of them are what.
    """
    row = torch.arange(len(sim), device=sim.device)[:, None].expand_as(index)
    sim[row[excluded], index[excluded]] = -torch.inf
    value = sim.gather(1, index).masked_fill_(~positive, -torch.inf)
    value = _ascending(value).flip(1).contiguous()
    rank, tied = _by_counting(sim, value) if few else _by_sorting(sim, value)
    tied = (tied & (value > -torch.inf)).any(1).nonzero()[:, 0]
    if len(tied):
        rank[tied] = _by_rows(sim[tied], index[tied], positive[tied])
    return rank


def _by_counting(sim: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """1 + the number of similarities above each value, and whether another item has the same: [c, M] each."""
    columns = [value[:, m : m + 1] for m in range(value.shape[1])]
    above = torch.stack([_true_per_row(sim, v, torch.gt) for v in columns], dim=1)
    equal = torch.stack([_true_per_row(sim, v, torch.eq) for v in columns], dim=1)
    return above + 1, equal > 1


def _true_per_row(sim: Tensor, value: Tensor, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    true = compare(sim, value)
    if true.is_cuda:
        return true.sum(1)
    return torch.from_numpy(true.numpy().sum(1, dtype=np.int32)).long()  # several times faster than torch's on a CPU


def _by_sorting(sim: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_by_counting`, from one sort of each row."""
    ascending = _ascending(sim)
    end = torch.searchsorted(ascending, value, right=True)  # one past the value's own place
    before = ascending.gather(1, (end - 2).clamp_(min=0))
    return sim.shape[1] - end + 1, (before == value) & (end >= 2)


def _by_rows(sim: Tensor, index: Tensor, positive: Tensor) -> Tensor:
    """Ranks with equal similarities in row order, from a stable sort: [c, M], ascending."""
    order = torch.sort(sim + 0.0, dim=1, descending=True, stable=True).indices  # + 0.0: a -0.0 equals 0.0
    place = torch.arange(1, sim.shape[1] + 1, device=sim.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place).gather(1, index)
    return rank.masked_fill_(~positive, sim.shape[1] + 1).sort(dim=1).values


def _ascending(x: Tensor) -> Tensor:
    if x.is_cuda:
        return x.sort(dim=1).values
    return torch.from_numpy(np.sort(x.numpy(), axis=1))  # vectorised in numpy 2: 15 times faster than torch's


def _equal_pairs(q_label: np.ndarray, q_visit: np.ndarray, g_label: np.ndarray, g_visit: np.ndarray) -> np.ndarray:
    """For each query the number of gallery items of its label and its visit: int64 [Q]."""
    label = np.unique(np.concatenate([g_label, q_label]), return_inverse=True)[1]
    visit = np.unique(np.concatenate([g_visit, q_visit]), return_inverse=True)[1]
    pair = label.astype(np.int64) * (visit.max(initial=0) + 1) + visit
    gallery = np.sort(pair[: len(g_label)])
    query = pair[len(g_label) :]
    return np.asarray(np.searchsorted(gallery, query, side="right") - np.searchsorted(gallery, query, side="left"))


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Float32 products as such, whatever the training around has chosen: TF32 and bfloat16 would reorder neighbours."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
