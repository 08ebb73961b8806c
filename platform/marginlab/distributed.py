"""Collectives with gradients. In a single process every function here is free and changes nothing but a dtype.

How gradients add up. Every rank computes the *global* loss and calls ``backward`` on it, so a sum of W equal losses is
differentiated, W times the true gradient; ``torch.nn.parallel.DistributedDataParallel`` then averages the parameter
gradients over the W ranks. The two cancel: the parameter gradient is that of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginlab.pulse import PULSE

T = TypeVar("T")
BUCKET = 2**25  # bytes of gradients that go to the other ranks together


_place: tuple[int, int] | None = None  # rank and number of ranks, where they are known


@contextmanager
def as_rank(rank: int, world: int) -> Iterator[None]:
    """Be this one of so many ranks for the length of the block, whatever becomes of torch's process group.

    Who started the ranks may destroy the process group of the others when one of them is lost, as Ray Train does while they still
    train, or before they begin to. A rank that asked torch who it is would from then on take itself for the only one: it would train
    with its share of each batch and write as rank 0 does. In this block it stays what it is, and its next collective fails.
    """
    global _place
    before, _place = _place, (rank, world)
    try:
        yield
    finally:
        _place = before


def is_distributed() -> bool:
    """Whether there is more than one rank."""
    return world() > 1


def world() -> int:
    """The number of ranks; outside of :func:`as_rank` torch's, and 1 where torch.distributed is not initialised."""
    if _place:
        return _place[1]
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    if _place:
        return _place[0]
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world())]
        with PULSE.collective():
            dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank used my rows, so my gradient is the sum over ranks. An all-reduce and not a reduce-scatter: gloo has
        # no reduce-scatter in every torch release, and [B, D] is small beside the parameters.
        grad = grad.clone(memory_format=torch.contiguous_format)
        with PULSE.collective():
            dist.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        with PULSE.collective():
            dist.all_reduce(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # All ranks hold the same incoming gradient, so their sum needs no communication.
        return grad * world()


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, in rank order: [b, ...] -> [B, ...], B = b * world. All ranks must give the same shape.

    The gradient of the own rows is the sum of what all ranks' losses send to them.
    """
    return cast(Tensor, _Gather.apply(x)) if is_distributed() else x  # type: ignore[no-untyped-call]


def total(x: Tensor) -> Tensor:
    """The sum of ``x`` over ranks, elementwise, in float64; the gradient is multiplied by the world size (see above)."""
    x = x.double()
    return cast(Tensor, _Total.apply(x)) if is_distributed() else x  # type: ignore[no-untyped-call]


def broadcast_object(x: T, source: int = 0) -> T:
    """What rank ``source`` passed, on every rank. The object is pickled, so keep it small."""
    if not is_distributed():
        return x
    box = [x]
    with PULSE.collective():
        dist.broadcast_object_list(box, src=source)
    return box[0]


def broadcast_flag(flag: bool, source: int = 0) -> bool:
    """The decision of rank ``source`` (go on or stop), on every rank."""
    return bool(broadcast_object(bool(flag), source))


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give every rank the buffers (running statistics) of rank 0; parameters are equal already."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def broadcast_gradients(parameters: Iterable[Tensor], source: int = 0) -> None:
    """Give every rank the gradients of one: for parameters outside the wrapped network, whose whole gradient each rank has.

    The ranks have computed the same numbers; this keeps it so where a device adds in no fixed order.
    """
    if is_distributed():
        for parameter in parameters:
            if parameter.grad is not None:
                dist.broadcast(parameter.grad, source)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every rank the mean of the ranks' gradients, as DistributedDataParallel does during ``backward``."""
    if not is_distributed():
        return
    waiting: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            bucket = waiting.setdefault(parameter.grad.dtype, [])
            bucket.append(parameter.grad)
            if sum(g.nbytes for g in bucket) >= BUCKET:
                _average(waiting.pop(parameter.grad.dtype))
    for bucket in waiting.values():
        _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    flat = torch.cat([g.flatten() for g in gradients]) / world()
    with PULSE.collective():
        dist.all_reduce(flat)
    for g, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        g.copy_(mean.view(g.shape))


def barrier() -> None:
    """Wait until every rank is here."""
    if is_distributed():
        with PULSE.collective():
            dist.barrier()
