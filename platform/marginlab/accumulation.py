"""A batch through the network in chunks, with the loss over all of it, so that a big batch fits a small card.

The embeddings of all chunks come first, without a graph; then the loss and its gradient with respect to them; then each chunk
again with a graph, into which its rows of that gradient are fed. Gradients of chunks add up to that of the batch, because
each image's embedding depends on that image alone; what does not (``networks.parts``) runs on the whole batch, after
the chunks. Only one chunk's activations exist at a time, for one more pass through the network without a graph.

Source: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021,
arXiv 2101.06983. Torch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from marginlab.networks.parts import Parts
from marginlab.values import InputError

Forward = Callable[[nn.Module, Tensor], Tensor]
DDP = nn.parallel.DistributedDataParallel


def check_chunk(owner: str, chunk: int | None) -> None:
    if chunk is not None and chunk < 1:
        raise InputError(f"{owner} must be at least 1 image, or None for the whole batch at once, not {chunk}.")


class Chunked:
    """One step's forward and backward; ``embed`` and then, after the loss's own backward, ``backward``.

    Random numbers (dropout) are drawn chunk by chunk, and are the same in both passes: the gradient is that of the
    embeddings that the loss has seen. They are others than those of a batch in one piece.
    """

    def __init__(self, parts: Parts, parallel: nn.Module, chunk: int, forward: Forward) -> None:
        """parallel: the body, or what wraps it for several ranks; chunk: images; forward: ``forward(module, images)``."""
        self.body, self.end = parts
        self.parallel, self.chunk, self.forward = parallel, chunk, forward
        self._images: tuple[Tensor, ...] = ()
        self._random: list[_Random] = []
        self._features = torch.empty(0)

    def embed(self, images: Tensor) -> Tensor:
        """[b, C, H, W] to [b, D], with a graph that reaches back to the features of the body."""
        self._images, self._random, found = torch.split(images, self.chunk), [], []
        with torch.no_grad():
            for chunk in self._images:
                self._random.append(_Random(images.device))
                found.append(self.forward(self.body, chunk))
        self._features = torch.cat(found).requires_grad_()
        return self.forward(self.end, self._features)

    def backward(self) -> None:
        """From the gradient of the features to that of the parameters; ranks exchange it once, with the last chunk."""
        assert self._features.grad is not None  # the loss's backward has been here
        gradients = torch.split(self._features.grad, self.chunk)
        after = _Random(self._features.device)
        for i, (images, random, gradient) in enumerate(zip(self._images, self._random, gradients, strict=True)):
            random.again()
            with self._kept_apart(last=i == len(gradients) - 1):
                torch.autograd.backward(self.forward(self.parallel, images), gradient)
        after.again()
        self._images, self._features = (), torch.empty(0)

    def _kept_apart(self, *, last: bool) -> AbstractContextManager[None]:
        return self.parallel.no_sync() if isinstance(self.parallel, DDP) and not last else nullcontext()


class _Random:
    """Where torch's generators were, so that a chunk meets the same random numbers again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def again(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)
