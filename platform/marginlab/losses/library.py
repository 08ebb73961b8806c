"""Losses of pytorch-metric-learning ("the library") behind the contract of MarginLab's own: one thin adapter for all.

The library computes, the adapter adds nothing. It hands over the unit embeddings and the labels of the *global* batch, on
every rank alike. That is redundant, and exact: miners, memories and means over what is not zero see what one process
would see, and ``marginlab.distributed`` says why the gradient is then that of one process too.

The library is imported when a loss is first used, for it takes seconds. It waits for the device in every step and holds
lists of pairs: its losses are here to be compared with, not to be fast.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from marginlab.losses.pairs import LossTerms, Pairs
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.margins import Margin


class Adapter(nn.Module):
    """A module of the library, ``(embeddings [B, D], labels [B]) -> scalar``, called as a loss is called.

    Reports what the library's reducers say: the mean of each of its terms, where there are several, and the share of the
    terms above 0 wherever it averages over those alone.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        from pytorch_metric_learning.reducers import BaseReducer, MultipleReducers

        self.module = module
        self._parts: dict[str, Tensor] = {}
        self._active: dict[str, Tensor] = {}
        for path, part in module.named_modules():
            if isinstance(part, BaseReducer) and not isinstance(part, MultipleReducers):
                head, _, rest = path.partition(".")
                key = rest.partition(".")[0] if head == "losses" else ""  # of the library's MultipleLosses
                summand = "" if key.isdigit() else key
                part.register_forward_hook(functools.partial(self._listen, summand))

    def forward(self, pairs: Pairs, margin: Margin) -> LossTerms:
        self._parts, self._active = {}, {}
        x = pairs.embeddings
        with torch.autocast(x.device.type, enabled=False):
            total = self.module(x, pairs.labels)
        # Of the terms above 0, which the library may average over, none is a NaN: it must not be hidden by that.
        total = total.double() + 0 * x.detach().sum().double()
        return LossTerms(total, self._parts, self._active)

    def _listen(self, summand: str, reducer: nn.Module, args: Any, mean: Tensor) -> None:
        ((term, info),) = args[0].items()
        name = "_".join(s for s in (summand, term.removesuffix("loss").strip("_")) if s)
        if name:
            self._parts[name] = mean.detach().double()
        if hasattr(reducer, "low"):  # its ThresholdReducer
            terms, zero = info["losses"], mean.detach().double() * 0  # terms: a tensor, or 0 where there are none
            some = isinstance(terms, Tensor) and terms.numel() > 0
            self._active[name or "anchor"] = (terms > reducer.low).double().mean() if some else zero


class LibraryLoss:
    """What the library's losses have in common as values: fields are the library's own parameters, with its names.

    None reads a margin slot. Their margins are distances, angles, or similarities to proxies; where one is a similarity of
    pairs it is one of several that only make sense together.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    above_zero: ClassVar[tuple[str, ...]] = ()  # fields

    def check(self) -> None:
        for name in self.above_zero:
            if getattr(self, name) <= 0:
                raise InputError(f"{type(self).__name__}.{name} must be above 0, not {getattr(self, name)}.")


class PairwiseLoss(LibraryLoss):
    """A loss of the library that is a function of the batch alone."""

    remembers: ClassVar[bool] = True  # the library's cross-batch memory takes it

    def criterion(self) -> Any:
        """The library's module, which has no types."""
        raise NotImplementedError

    def miner(self) -> Any:
        """The library's module that picks the pairs; None for all pairs."""
        return None

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        terms: LossTerms = _adapter(self)(pairs, margin)
        return terms


@functools.lru_cache(maxsize=32)
def _adapter(loss: PairwiseLoss) -> Adapter:
    criterion, miner = loss.criterion(), loss.miner()
    if miner is None:
        return Adapter(criterion)
    from pytorch_metric_learning.losses import MultipleLosses

    return Adapter(MultipleLosses([criterion], miners=[miner]))
