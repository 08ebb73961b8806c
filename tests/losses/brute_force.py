"""The oracle: definitions as loops over triplets and pairs, one scalar at a time. Slow, and meant to be read."""

from __future__ import annotations

import torch
from torch import Tensor

MINED = {
    "semihard": lambda gap, eps: 0 < gap <= eps,
    "all": lambda gap, eps: gap <= eps,
    "hard": lambda gap, eps: gap <= 0,
    "easy": lambda gap, eps: gap > eps,
}

LABELS = {
    "unequal classes": [3, 1, 1, 0, 2, 1, 0, 1, 2, 1],
    "images alone in their class": [5, 0, 4, 0, 3, 1, 1, 6],
    "one pair and many alone": [0, 1, 2, 3, 0, 4, 5],
    "P x K": [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3],
    "one class, no negative": [7, 7, 7, 7],
    "no positive": [0, 1, 2, 3, 4],
    "one image": [0],
    "two classes, many positives": [1, 0, 0, 1, 0, 0, 0, 1, 0],
}


def batch(name: str, seed: int = 0, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    """Embeddings float64 [B, 5] around random class centres, not of unit length, and labels [B]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(LABELS[name])
    centres = torch.randn(int(labels.max()) + 1, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), 5, generator=generator, dtype=torch.float64)
    return (centres[labels] + spread * noise).requires_grad_(), labels


def similarities(embeddings: Tensor) -> Tensor:
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    return unit @ unit.T


def triplets(labels: Tensor) -> list[tuple[int, int, int]]:
    y, n = labels.tolist(), range(len(labels))
    return [(a, p, q) for a in n for p in n for q in n if a != p and y[a] == y[p] and y[a] != y[q]]


def negative_pairs(labels: Tensor) -> list[tuple[int, int]]:
    """As published: the sorted (a, n) of all triplets, each once."""
    return sorted({(min(a, n), max(a, n)) for a, _, n in triplets(labels)})


def mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean() if terms else torch.zeros((), dtype=torch.float64)


def triplet_terms(embeddings: Tensor, labels: Tensor, epsilon: float, mining: str) -> list[Tensor]:
    sim = similarities(embeddings)
    cell, number, terms = [row.unbind() for row in sim.unbind()], sim.tolist(), []
    for a, p, n in triplets(labels):
        mined = MINED[mining](number[a][p] - number[a][n], epsilon)
        if mined and number[a][n] - number[a][p] + epsilon > 0:
            terms.append(cell[a][n] - cell[a][p] + epsilon)
    return terms


def pair_terms(embeddings: Tensor, labels: Tensor, beta: float) -> list[Tensor]:
    sim = similarities(embeddings)
    return [sim[i, j] - beta for i, j in negative_pairs(labels) if sim[i, j] >= beta]


def gradient(loss: Tensor, embeddings: Tensor) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros_like(embeddings)
    (grad,) = torch.autograd.grad(loss, embeddings)
    return grad
