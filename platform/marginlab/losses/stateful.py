"""Losses that carry something from batch to batch: proxies that are trained, a memory of embeddings.

Such a loss is a frozen value like any other, with ``build(classes, dim) -> nn.Module`` in place of a call. The module is
called as a loss is, ``module(pairs, margin) -> LossTerms``. Its parameters are trained with the network, at ``lr_factor`` (1
where the value has none) times the network's learning rate; its ``state_dict``, of tensors, is part of the checkpoint.

Every rank has a module of its own, and they must stay equal: compute the *global* loss from ``pairs.embeddings`` and
``pairs.labels`` without ``pairs.total``, and change buffers by functions of these alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from marginlab.values import stable_seed


def build_seeded(loss: Any, classes: int, example: Tensor, seed: int) -> Any:
    """What is called as the loss of a run: the value itself, or the module that it builds.

    The initial state depends on the seed alone; torch's random state is left as it was.

    Args:
        classes: identities of the training split; labels are 0 .. classes - 1.
        example: an embedding or more, [..., D]: its size, device and precision are those of what is carried.
    """
    if not hasattr(loss, "build"):
        return loss
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stable_seed(seed, "loss"))
        module = cast(nn.Module, loss.build(classes, example.shape[-1]))
    return module.to(example)
