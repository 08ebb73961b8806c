"""The oracle: definitions as loops over triplets and pairs, one scalar at a time. Slow, and meant to be read."""

from __future__ import annotations

import math

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


def batch(name: str, seed: int = 0, spread: float = 0.6, dim: int = 5) -> tuple[Tensor, Tensor]:
    """Embeddings float64 [B, dim] around random class centres, not of unit length, and labels [B]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(LABELS[name])
    centres = torch.randn(int(labels.max()) + 1, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
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


def mined_triplets(embeddings: Tensor, labels: Tensor, epsilon: float, mining: str) -> list[Tensor]:
    """sim_an - sim_ap + epsilon of the mined triplets, whatever its sign."""
    sim = similarities(embeddings)
    found = [(sim[a, n] - sim[a, p] + epsilon, (sim[a, p] - sim[a, n]).item()) for a, p, n in triplets(labels)]
    return [short for short, gap in found if MINED[mining](gap, epsilon)]


def positive_pairs(labels: Tensor) -> list[tuple[int, int]]:
    n = range(len(labels))
    return [(i, j) for i in n for j in n if i < j and labels[i] == labels[j]]


def softplus(x: Tensor) -> Tensor:
    return (1 + x.exp()).log()


def hardest_triplets(embeddings: Tensor, labels: Tensor) -> list[tuple[int, int, int]]:
    """(a, nearest positive, nearest negative) of every anchor that has both."""
    sim, found = similarities(embeddings), {}
    for a, p, n in triplets(labels):
        _, was_p, was_n = found.get(a, (a, p, n))
        found[a] = (a, max(was_p, p, key=lambda j: sim[a, j]), max(was_n, n, key=lambda j: sim[a, j]))
    return list(found.values())


def sct_terms(embeddings: Tensor, labels: Tensor, lam: float, temperature: float, mining: str) -> list[Tensor]:
    sim, terms = similarities(embeddings), []
    for a, p, n in triplets(labels) if mining == "all" else hardest_triplets(embeddings, labels):
        if sim[a, n] > sim[a, p]:
            terms.append(lam * sim[a, n])
        else:
            ap, an = (sim[a, p] / temperature).exp(), (sim[a, n] / temperature).exp()
            terms.append(-(ap / (ap + an)).log())
    return terms


def agreements(embeddings: Tensor) -> list[Tensor]:
    half = embeddings.shape[1] // 2
    return [x[:half] @ x[half:] / (x[:half].norm() * x[half:].norm()) for x in embeddings]


def fine_triplet(embeddings: Tensor, labels: Tensor, margin: float, scale: float, degrees: bool) -> Tensor:
    sim, d = similarities(embeddings), agreements(embeddings)
    e = [torch.clamp((1 + x) / 2, min=1e-3) for x in d]
    relu, n = torch.nn.functional.relu, range(len(labels))
    positives = []
    for i, j in positive_pairs(labels):
        r = 1 / ((e[i] / e[j] + e[j] / e[i]) / 2) if degrees else 1
        positives.append((-scale * r * relu(1 + margin - sim[i, j]) * (sim[i, j] - (1 - margin))).exp())
    negatives = [
        (scale * relu(sim[i, j] + margin) * (sim[i, j] - margin)).exp()
        for i in n
        for j in n
        if i < j and labels[i] != labels[j]
    ]
    if not positives or not negatives:
        return torch.tensor(math.log(1), dtype=torch.float64)
    return (1 + mean(positives) * mean(negatives)).log()


def gradient(loss: Tensor, embeddings: Tensor) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros_like(embeddings)
    (grad,) = torch.autograd.grad(loss, embeddings)
    return grad
