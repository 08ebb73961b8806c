"""Who resembles whom in a batch, and who is whose: the one thing that losses and margin statistics are computed from.

Legend: ``B`` global batch, ``b`` rows of this rank (B = b * world), ``D`` embedding, ``M`` most positives of an anchor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cosine_similarity, normalize

from marginlab import distributed
from marginlab.values import InputError


class Positives(NamedTuple):
    """The positives of each own anchor, side by side in M slots; slots past an anchor's last positive are padding."""

    sim: Tensor  # [b, M], gradient flows
    column: Tensor  # int64 [b, M], the global index of the positive
    real: Tensor  # bool [b, M], False for padding


class Classes(NamedTuple):
    """The batch sorted by label. Nothing here depends on the device's answer."""

    order: Tensor  # int64 [B], batch positions in the order of their labels
    begin: Tensor  # int64 [B], where in ``order`` the class of each image begins
    size: Tensor  # int64 [B], how many images the class of each image has

    @classmethod
    def of(cls, labels: Tensor) -> Classes:
        by_label, order = torch.sort(labels, stable=True)
        begin = torch.searchsorted(by_label, labels)
        return cls(order, begin, torch.searchsorted(by_label, labels, right=True) - begin)


@dataclass(frozen=True)
class LossTerms:
    """What a loss says about one global batch; equal on all ranks. All are 0-d float64 tensors on the device."""

    total: Tensor  # to be minimised
    parts: dict[str, Tensor]  # the unweighted means that make up the total, detached
    active: dict[str, Tensor]  # share of triplets or pairs (0..1) that the loss acts on, by part


@dataclass(frozen=True, eq=False)
class Pairs:
    """Similarities of this rank's anchors (rows) with everyone's embeddings (columns, in rank order).

    Nothing below waits for the device: no ``.item()``, no index lists, no boolean indexing. Masks [b, B] are made when they
    are first asked for; what is fast does without them (:meth:`negatives`).
    """

    sim: Tensor  # [b, B] cosine, float32 (float64 if the embeddings are); gradient flows to every rank's embeddings
    embeddings: Tensor  # [B, D] of unit length: what sim's columns are made of; gradient flows to every rank
    labels: Tensor  # int64 [B]
    classes: Classes
    start: int  # global index of this rank's first row
    max_positives: int  # M
    some_alone: bool  # False if it is known that no image is alone in its class: read where that is free, on a CPU

    @classmethod
    def of(cls, embeddings: Tensor, labels: Tensor, max_positives: int | None = None) -> Pairs:
        """Pairs of the global batch from this rank's embeddings [b, D] and integer labels [b] (same b on every rank).

        ``max_positives`` is the largest number of positives that any anchor of the *global* batch has; the sampler
        knows it (images per identity - 1). If None it is read from the labels, which makes the host wait for the device.

        Half precision ends here: embeddings are normalised in float32, where the norm of no float16 vector overflows. An
        embedding that holds NaN or inf has similarity NaN to everything, and every loss that meets it is NaN. One of
        length 0, or too long for float32 (above 1.8e19), has similarity 0 to everything.
        """
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
            shapes = f"embeddings {list(embeddings.shape)} and labels {list(labels.shape)}"
            raise ValueError(f"Pairs.of got {shapes}: pass embeddings [b, D] and one label for each of them [b].")
        if labels.is_floating_point():
            raise ValueError(f"Pairs.of got labels of {labels.dtype}: pass whole numbers, one per identity.")
        with torch.autocast(embeddings.device.type, enabled=False):
            own = normalize(embeddings if embeddings.dtype == torch.float64 else embeddings.float(), dim=1)
            every = distributed.gather(own)
            sim = own @ every.T
        everyone = distributed.gather(labels)
        start = distributed.rank() * len(labels)
        classes = Classes.of(everyone)
        if max_positives is None:
            max_positives = int(classes.size.max()) - 1
        elif labels.device.type == "cpu" and classes.size.max() - 1 > max_positives:  # free to check only on a CPU
            raise ValueError(
                f"max_positives is {max_positives}, but an image of this batch has {classes.size.max() - 1} positives: "
                "pass the sampler's images per identity minus one, or None to count them."
            )
        some_alone = labels.device.type != "cpu" or bool((classes.size == 1).any())
        return cls(sim, every, everyone, classes, start, max_positives, some_alone)

    def total(self, x: Tensor) -> Tensor:
        """Sum over ranks in float64; differentiable so that DDP's averaged gradient is the exact one."""
        return distributed.total(x)

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """A global sum by its global count. 0, with a zero gradient, for the empty set (whose sum is 0)."""
        return total / count.detach().clamp(min=1)

    @cached_property
    def positive(self) -> Tensor:
        """bool [b, B]: same label and not the same place in the batch."""
        same = self.labels[self.rows, None] == self.labels
        same.diagonal(self.start).fill_(False)
        return same

    @cached_property
    def negative(self) -> Tensor:
        """bool [b, B]: other label."""
        return self.labels[self.rows, None] != self.labels

    @cached_property
    def first(self) -> Tensor:
        """bool [b, B]: own global index < the column's. The rank of the smaller index owns an unordered pair."""
        return torch.ones_like(self.sim, dtype=torch.bool).triu_(self.start + 1)

    @cached_property
    def negative_pairs(self) -> Tensor:
        """bool [b, B]: the unordered negative pairs {a, n} that this rank owns, each of the global batch once.

        As published, pairs are taken from triplets: one exists if a *or* n has a positive. Two images that are both
        alone in their classes form no pair. (In P x K batches nobody is alone, and every negative pair exists.)
        """
        return self.negative & self.first & (self._partnered[self.rows, None] | self._partnered)

    @cached_property
    def positive_pairs(self) -> Tensor:
        """bool [b, B]: the unordered positive pairs that this rank owns."""
        return self.positive & self.first

    @cached_property
    def agreement(self) -> Tensor:
        """[B] the cosine of the two halves of each descriptor, -1..1; gradient flows to every rank's embeddings.

        Of a descriptor made of two mirrored views, how far the views agree. A half of length 0 agrees with nothing (0).
        """
        dim = self.embeddings.shape[1]
        if dim % 2:
            raise InputError(
                f"The agreement of an embedding's two halves needs an even number of dimensions, not {dim}: "
                "let the network give an even dim, or take a loss that needs no halves (FineTriplet(degrees=False))."
            )
        one, other = self.embeddings.chunk(2, dim=1)
        return cosine_similarity(one, other, dim=1)

    @property
    def rows(self) -> slice:
        """This rank's part of the global batch."""
        return slice(self.start, self.start + len(self.sim))

    def positives(self) -> Positives:
        """The similarities of the positives as [b, M]: found by sorting labels, without a search through [b, B]."""
        column, real = self._slots
        return Positives(self.sim.gather(1, column), column, real)

    def negatives(self, rows: slice) -> Tensor:
        """[r, B]: the similarities of these rows' negatives, and -inf in the other columns; a copy without a graph.

        The columns of a row's own class are few and known: to write to them takes a tenth of the time of a mask.
        """
        return self.sim.detach()[rows].scatter(1, self._own_class[rows], -float("inf"))

    def close(self, rows: slice, an: Tensor, beta: Tensor, out: Tensor) -> Tensor:
        """Where ``negative_pairs[rows]`` are at least ``beta`` similar: 1, else 0; into ``out`` [r, B], which is returned.

        an: ``negatives(rows)``; beta: of its dtype.
        """
        torch.ge(an, beta, out=out).triu_(self.start + rows.start + 1)
        if self.some_alone:
            out *= self._partnered[rows.start + self.start : rows.stop + self.start, None] | self._partnered
        return out

    @cached_property
    def triplet_count(self) -> Tensor:
        """Number of ordered triplets (a, p, n) of the global batch, from the class sizes; 0-d float64, no communication."""
        size = self.classes.size.double()
        return ((size - 1) * (len(self.labels) - size)).sum()

    @cached_property
    def negative_count(self) -> Tensor:
        """Number of unordered negative pairs of the global batch, counted as :attr:`negative_pairs` has them."""
        size = self.classes.size.double()
        alone = (size == 1).sum()
        return ((len(self.labels) - size).sum() - alone * (alone - 1)) / 2

    @cached_property
    def positive_count(self) -> Tensor:
        """Number of unordered positive pairs of the global batch."""
        return (self.classes.size.double() - 1).sum() / 2

    def chunks(self) -> Iterator[slice]:
        """Row slices for elementwise work on [b, B]: as large as some stay in a CPU's L2 cache, or all rows on an accelerator."""
        return chunks(self.sim)

    @cached_property
    def _partnered(self) -> Tensor:
        """bool [B], not alone in its class."""
        return self.classes.size > 1

    @cached_property
    def _own_class(self) -> Tensor:
        """int64 [b, M + 1]: the columns of each row's own class, itself among them, again where the class is smaller."""
        column, real = self._slots
        own = torch.arange(self.start, self.start + len(column), device=column.device)[:, None]
        return torch.cat([own, torch.where(real, column, own)], 1)

    @cached_property
    def _slots(self) -> tuple[Tensor, Tensor]:
        order, begin, size = self.classes
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        slot = torch.arange(self.max_positives, device=order.device)
        begin, size, place = (x[self.rows, None] for x in (begin, size, place))
        behind_self = slot >= place - begin  # the anchor itself is no slot: those behind it move up by one
        return order[(begin + slot + behind_self).clamp(max=len(order) - 1)], slot < size - 1


def chunks(x: Tensor) -> Iterator[slice]:
    """Of x [b, B], see :meth:`Pairs.chunks`."""
    cells = 2**16 if x.device.type == "cpu" else 2**26
    step = max(1, cells // max(1, x.shape[1]))
    return (slice(i, min(i + step, len(x))) for i in range(0, len(x), step))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sim: Tensor, sums: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        ctx.dtype = sim.dtype
        return sums.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights = ctx.saved_tensors
        first, *rest = grad.to(ctx.dtype).reshape(len(weights), -1)[:, 0].unbind()
        out = torch.empty_like(weights[0])
        for rows in chunks(out):
            torch.mul(weights[0][rows], first, out=out[rows])
            for weight, slope in zip(weights[1:], rest, strict=True):
                out[rows].addcmul_(weight[rows], slope)
        return out, None, *(None for _ in weights)


def linear(sim: Tensor, sums: Tensor, *weights: Tensor) -> Tensor:
    """``sums``, the first of which has ``weight`` as its gradient with respect to ``sim``, and the others none.

    With k weights [b, B], ``sums`` [k n] are k such groups of n behind each other.

    For losses that are linear in the similarities between decisions: the decisions, hence the weights, are made without a
    graph, in place and in chunks; the graph holds nothing else. For other losses the weights are the derivatives at the
    present similarities.
    """
    return cast(Tensor, _Linear.apply(sim, sums, *weights))  # type: ignore[no-untyped-call]
