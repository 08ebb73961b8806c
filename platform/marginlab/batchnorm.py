"""Batch normalisation of a batch that comes in pieces, with the numbers of the batch in one piece.

A piece cannot be normalised before all of them have been seen. So the pieces go through a module several times: each
forward pass finds the mean and variance for one more batch normalisation and ends there; each backward pass finds the two
sums that the gradient through one of them needs, from the last to the first. With N values per channel over all pieces,
x^ = (x - mean) / sqrt(var + eps), y = w x^ + b and g = dL/dy:

    dL/dx = w / sqrt(var + eps) (g - sum(g) / N - x^ sum(g x^) / N),   dL/db = sum(g),   dL/dw = sum(g x^)

Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, arXiv 1502.03167, section 3. Torch alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from marginlab import distributed
from marginlab.values import InputError

_UNSTEADY = (
    "The network calls other batch normalisations in one pass than in another (does it recompute activations, or choose its "
    "layers by chance?): it cannot take a batch in chunks. Leave chunk out."
)
_KNOWN = {_BatchNorm.forward, nn.SyncBatchNorm.forward}


def by_batch(module: nn.Module) -> bool:
    """Whether it is a batch normalisation that, as it stands, takes the batch's statistics."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def in_pieces(module: nn.Module) -> bool:
    """Whether such a batch normalisation can take a batch in pieces: torch's own can, one that computes otherwise cannot."""
    return type(module).forward in _KNOWN


class Reached(Exception):  # no fault: there is nothing more to do in this pass
    """A piece has come to a batch normalisation whose statistics are not known yet."""


@dataclass
class _Call:
    """One call of a batch normalisation. Tensors are [C] and as precise as it computes, float32 at least."""

    module: _BatchNorm
    count: int  # N, over all ranks where they share it
    mean: Tensor
    var: Tensor  # biased
    sums: Tensor  # [2, C]: sum(g) and sum(g x^), once they are known

    def unit(self, x: Tensor) -> Tensor:
        """x^ of x [b, C, ...]."""
        return (x.to(self.mean.dtype) - _broad(self.mean, x)) * _broad(self.scale(), x)

    def scale(self) -> Tensor:
        return (self.var + self.module.eps).rsqrt()


@dataclass(frozen=True)
class _Piece:
    """A piece at a call of a batch normalisation."""

    module: _BatchNorm
    mean: Tensor  # [C]
    var: Tensor  # [C]; biased
    count: int  # of values per channel


class _Normalise(torch.autograd.Function):
    """y of x, whose gradient is that of the whole batch; the gradients of w and b are the piece's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, call: _Call) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.call = call
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(x, weight, bias, call.mean, call.var, False, 0.0, call.module.eps, cudnn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        call: _Call = ctx.call
        unit = call.unit(x)
        g = gradient.to(unit.dtype)
        of_bias, of_weight = _sums(g, unit)
        scale = call.scale() if weight is None else call.scale() * weight
        means = call.sums.to(unit.dtype) / call.count
        back = (g - _broad(means[0], x) - unit.mul_(_broad(means[1], x))).mul_(_broad(scale, x))
        return back.to(x.dtype), *((None, None) if weight is None else (of_weight, of_bias)), None


class BatchNorms:
    """The batch normalisations of a module, in the order of their calls, which must be the same in every pass.

    Synchronised ones share statistics and sums with the other ranks, once per call and direction. Running statistics are
    updated once, when the mean and the variance are known.
    """

    def __init__(self, module: nn.Module) -> None:
        self.modules = [m for m in module.modules() if isinstance(m, _BatchNorm) and by_batch(m)]
        self.calls: list[_Call] = []
        self._started = self._complete = False  # the forward passes; complete: all calls are known
        self._at = 0
        self._next: list[_Piece] = []  # of the next call
        self._wanted: _Call | None = None
        self._found: tuple[Tensor, Tensor] | None = None  # x^ and y of the wanted call, of the piece at hand

    @contextmanager
    def governed(self) -> Iterator[None]:
        """Within it the module's batch normalisations do what is said here."""
        for m in self.modules:
            m.forward = partial(self._forward, m)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for m in self.modules:
                del m.forward

    def another(self) -> bool:
        """Whether all pieces have to go forward once more: at first, and after a pass that ended at a call."""
        if self._next:
            self.calls.append(_settled(self._next))
            self._next = []
            return True
        self._complete, started = self._started, self._started
        self._started = True
        return not started

    def begin(self) -> None:
        """A piece is at the module's beginning."""
        self._at = 0

    def end(self) -> None:
        """A piece is through."""
        if self._at != len(self.calls):
            raise InputError(_UNSTEADY)

    def want(self, call: _Call | None) -> None:
        """The backward passes that come find the sums of this call; None: the gradients."""
        self._wanted = call

    def add(self, out: Tensor, gradient: Tensor) -> None:
        """A piece's share of the wanted sums. out, gradient: the piece at the module's end, and the loss's gradient there."""
        assert self._wanted is not None and self._found is not None
        unit, y = self._found
        (g,) = torch.autograd.grad(out, y, gradient.to(out.dtype), allow_unused=True)
        if g is not None:
            self._wanted.sums += torch.stack(_sums(g.to(unit.dtype), unit)).double()
        self._found = None

    def share(self) -> None:
        """The wanted sums are complete but for those of other ranks."""
        assert self._wanted is not None
        if _synchronised(self._wanted.module):
            self._wanted.sums = distributed.total(self._wanted.sums)

    def _forward(self, module: _BatchNorm, x: Tensor) -> Tensor:
        if self._at == len(self.calls):
            if self._complete:
                raise InputError(_UNSTEADY)
            exact = x.detach().to(torch.promote_types(x.dtype, torch.float32))
            var, mean = torch.var_mean(exact, _others(x), correction=0)
            self._next.append(_Piece(module, mean, var, x.numel() // x.shape[1]))
            raise Reached
        call = self.calls[self._at]
        if call.module is not module:
            raise InputError(_UNSTEADY)
        self._at += 1
        y: Tensor = _Normalise.apply(x, module.weight, module.bias, call)  # type: ignore[no-untyped-call]
        if call is self._wanted:
            y = y.detach().requires_grad_()
            self._found = call.unit(x.detach()), y
            return y.clone()  # a leaf, but what follows may work in place
        return y


def _settled(pieces: list[_Piece]) -> _Call:
    """Pieces' means and variances put together (Chan, Golub, LeVeque 1983), in float64."""
    module, precision = pieces[0].module, pieces[0].mean.dtype
    count = sum(p.count for p in pieces)
    moments = torch.stack([torch.stack([p.mean, p.var]) for p in pieces]).double()
    mean, var = _together(moments, [p.count / count for p in pieces])
    if _synchronised(module):  # all ranks have the same share
        world = distributed.world()
        mean, var = _together(distributed.gather(torch.stack([mean, var])[None]), [1 / world] * world)
        count *= world
    if count == 1:
        raise ValueError("Expected more than 1 value per channel when training")  # as torch has it
    _remember(module, mean, var * (count / (count - 1)))
    return _Call(module, count, mean.to(precision), var.to(precision), torch.zeros_like(moments[0]))


def _together(moments: Tensor, shares: list[float]) -> tuple[Tensor, Tensor]:
    """Means and variances [k, 2, C] of parts to those [C] of the whole."""
    mean, var = torch.zeros_like(moments[0])
    for share, part in zip(shares, moments, strict=True):
        mean += share * part[0]
    for share, part in zip(shares, moments, strict=True):
        var += share * (part[1] + (part[0] - mean) ** 2)
    return mean, var


def _remember(module: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Running statistics, as torch updates them; var is unbiased."""
    if module.running_mean is None or module.running_var is None or not module.training:
        return
    assert module.num_batches_tracked is not None
    module.num_batches_tracked += 1
    share: Any = 1 / module.num_batches_tracked.double() if module.momentum is None else module.momentum
    for running, new in ((module.running_mean, mean), (module.running_var, var)):
        running.copy_((1 - share) * running + share * new.to(running.dtype))


def _synchronised(module: nn.Module) -> bool:
    return isinstance(module, nn.SyncBatchNorm) and distributed.is_distributed()


def _sums(g: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    return g.sum(_others(g)), (g * unit).sum(_others(g))


def _others(x: Tensor) -> list[int]:
    """The axes of x [b, C, ...] that are not C."""
    return [0, *range(2, x.dim())]


def _broad(x: Tensor, like: Tensor) -> Tensor:
    return x.view(1, -1, *[1] * (like.dim() - 2))
