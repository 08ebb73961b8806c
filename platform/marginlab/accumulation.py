"""A batch through the network in chunks, with the loss over all of it, so that a big batch fits a small card.

The embeddings of all chunks come first, without a graph; then the loss and its gradient with respect to them; then each chunk
again with a graph, into which its rows of that gradient are fed. Gradients of chunks add up to that of the batch, because
each image's embedding depends on that image alone; what does not, at the network's end, runs on the whole batch. A network
that normalises by the batch inside takes that way stage by stage (``networks.parts``), each in several passes
(``batchnorm``). Only one chunk's activations exist at a time, and of every image what is between two stages.

Source: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021,
arXiv 2101.06983. Torch alone.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from marginlab import distributed
from marginlab.batchnorm import BatchNorms, Reached
from marginlab.networks.parts import Added, Parts
from marginlab.precision import forward, full, precision
from marginlab.values import InputError

Pieces = list[Tensor]  # of one chunk: tensors [b, C_k, ...] that a stage takes concatenated by channels


def check_chunk(owner: str, chunk: int | None) -> None:
    if chunk is not None and chunk < 1:
        raise InputError(f"{owner} must be at least 1 image, or None for the whole batch at once, not {chunk}.")


class Chunked:
    """One step's forward and backward; ``embed`` and then, after the loss's own backward, ``backward``.

    Random numbers (dropout) are drawn chunk by chunk, and are the same in all passes: the gradient is that of the
    embeddings that the loss has seen. They are others than those of a batch in one piece. On several ranks the network
    is not to be wrapped: ``backward`` averages the gradients.
    """

    def __init__(self, parts: Parts, chunk: int) -> None:
        """chunk: images."""
        self.parts, self.chunk = parts, chunk
        self._visits: list[_Visit] = []
        self._features: Pieces = []

    def embed(self, images: Tensor) -> Tensor:
        """[b, C, H, W] to [b, D], with a graph that reaches back to the features that the end takes."""
        chunks: list[Pieces] = [[x] for x in torch.split(images, self.chunk)]
        seeds = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        before = _Random(images.device)
        with torch.no_grad():
            for stage in self.parts.stages:
                self._visits.append(_Visit(stage, chunks, seeds))
                chunks = self._visits[-1].forward()
        before.again()
        self._features = [full(x).requires_grad_() for (x,) in chunks]
        return forward(self.parts.end, torch.cat(self._features))

    def backward(self) -> None:
        """From the gradient of the features to that of the parameters; ranks exchange it once, at the end."""
        gradients: list[Pieces] = [[x.grad] for x in self._features if x.grad is not None]  # by the loss's backward
        before, self._features = _Random(gradients[0][0].device), []
        while self._visits:
            visit = self._visits.pop()
            gradients = visit.backward(gradients, further=bool(self._visits))
        before.again()
        distributed.average_gradients(p for stage in self.parts.stages for p in stage.parameters())


class _Visit:
    """One batch at one stage, with what it takes to go back."""

    def __init__(self, stage: nn.Module, chunks: list[Pieces], seeds: torch.Generator) -> None:
        self.stage, self.chunks, self.norms = stage, chunks, BatchNorms(stage)
        # One of each chunk's own, for a pass may end before the chunk has drawn all that it will.
        self.seeds = torch.randint(2**62, (len(chunks),), generator=seeds).tolist()

    def forward(self) -> list[Pieces]:
        out: list[Tensor] = []
        with self.norms.governed():
            while self.norms.another():
                for i, pieces in enumerate(self.chunks):
                    with suppress(Reached):
                        out.append(self._run(i, pieces))
        if isinstance(self.stage, Added):
            return [[*pieces, x] for pieces, x in zip(self.chunks, out, strict=True)]
        return [[x] for x in out]

    def backward(self, gradients: list[Pieces], *, further: bool) -> list[Pieces]:
        """Of what it gives to what it takes, and into the parameters. further: something is before this stage."""
        own = [of.pop() for of in gradients]
        with self.norms.governed():
            for call in reversed(self.norms.calls):
                self.norms.want(call)
                for i, pieces in enumerate(self.chunks):
                    self.norms.add(self._run(i, pieces), own[i])
                self.norms.share()
            self.norms.want(None)
            for i, pieces in enumerate(self.chunks):
                leaves = [x.detach().requires_grad_(further) for x in pieces]
                out = self._run(i, leaves)
                if out.requires_grad:
                    torch.autograd.backward(out, own[i].to(out.dtype))
                if further:
                    found = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
                    gradients[i] = (
                        [a.add_(b) for a, b in zip(gradients[i], found, strict=True)] if gradients[i] else found
                    )
        return gradients

    def _run(self, i: int, pieces: Pieces) -> Tensor:
        torch.manual_seed(self.seeds[i])
        self.norms.begin()
        # A copy, for a stage may work in place.
        x = torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0].clone()
        with precision(x.device):
            out: Tensor = self.stage(x)
        self.norms.end()
        return out


class _Random:
    """Where torch's generators are, to go back there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def again(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)
