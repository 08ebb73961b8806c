"""What the ranks run for test_losses and test_distributed; the same functions make the single-process reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from marginlab import distributed
from marginlab.losses import SCT, WAT, AdaTriplet, FineTriplet, Pairs, Triplet
from marginlab.margins import AutoMargin, Margin, PositiveBound, Statistics

LOSSES: list[Any] = [make(mining=m) for make in (Triplet, AdaTriplet) for m in ("semihard", "all", "hard", "easy")]
LOSSES += [AdaTriplet(lam=0.3), AdaTriplet(pull=0.7), AdaTriplet(pair="lse", pull=0.7)]
LOSSES += [AdaTriplet(mining=m, smooth=True) for m in ("semihard", "all", "hard", "easy")]
LOSSES += [WAT(), WAT(k=0), SCT(), SCT(mining="all"), FineTriplet(), FineTriplet(degrees=False, scale=8)]

# Global batches of 8 images with 4 features; the first four images are those of rank 0.
LABELS = {
    "whole identities": [0, 0, 1, 1, 2, 2, 3, 3],
    "identities over both ranks": [0, 1, 2, 0, 1, 0, 2, 1],
    "nobody of rank 1 has a positive": [0, 0, 0, 1, 2, 3, 4, 5],
    "no active triplet on rank 0": [0, 0, 0, 0, 1, 1, 2, 2],
    "one class on each rank": [4, 4, 4, 4, 2, 2, 2, 2],
    "no negative": [1] * 8,
    "no positive": list(range(8)),
}


def features(name: str, seed: int) -> Tensor:
    """float64 [8, 4]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    if name == "no active triplet on rank 0":  # its one class lies together, opposite to everything else
        x[:4] = torch.tensor([9.0, 0, 0, 0]) + 0.1 * x[:4]
        x[4:] = torch.tensor([-3.0, 0, 0, 0]) + x[4:]
    return x


def layer() -> nn.Module:
    """A linear layer with fixed weights, wrapped for several ranks where there are several."""
    linear = nn.Linear(4, 4, dtype=torch.float64)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.linspace(-1.0, 1.3, parameter.numel()).sin().view_as(parameter))
        linear.weight[:, 0] = torch.tensor([2.0, -1.0, 1.0, 0.5])
    return DistributedDataParallel(linear) if distributed.is_distributed() else linear


def own_rows(x: Tensor) -> Tensor:
    b = len(x) // distributed.world()
    return x[distributed.rank() * b : (distributed.rank() + 1) * b]


def step(loss: Any, name: str, margin: Margin, network: nn.Module, seed: int) -> tuple[dict[str, float], Statistics]:
    """Forward and backward of one batch: what the loss said, and the batch's statistics."""
    labels = torch.tensor(LABELS[name])
    pairs = Pairs.of(network(own_rows(features(name, seed))), own_rows(labels))
    terms = loss(pairs, margin)
    network.zero_grad()
    terms.total.backward()
    said = {"total": terms.total.item()}
    said |= {f"part {k}": v.item() for k, v in terms.parts.items()}
    said |= {f"active {k}": v.item() for k, v in terms.active.items()}
    return said, Statistics.of(pairs)


def gradients(network: nn.Module) -> list[float]:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).tolist()


def single_steps() -> dict[str, Any]:
    """Every loss on every batch at several margins: {case: {number's name: number}}."""
    numbers, network = {}, layer()
    for name in LABELS:
        for i, loss in enumerate(LOSSES):
            for seed, margin in enumerate([Margin.of(0.25, 0.0, beta_p=0.3), Margin.of(1.2, 0.6, beta_p=0.9)]):
                said, statistics = step(loss, name, margin, network, seed)
                said |= {f"gradient {j}": g for j, g in enumerate(gradients(network))}
                said |= {f"statistics {j}": s for j, s in enumerate(statistics.sums.flatten().tolist())}
                numbers[f"{name}, {loss}, {i}, {seed}"] = said
    return numbers


def training() -> dict[str, Any]:
    """Three epochs of two batches with AutoMargin and plain gradient descent, for every loss."""
    numbers = {}
    for loss in LOSSES:
        policy: Any = PositiveBound(AutoMargin()) if "beta_p" in loss.slots else AutoMargin()
        network, said = layer(), {}
        margin = policy.start()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.3)
        for epoch in range(3):
            statistics = Statistics()
            for batch, name in enumerate(["whole identities", "identities over both ranks"]):
                _, seen = step(loss, name, margin, network, seed=10 * epoch + batch)
                statistics.add(seen)
                optimiser.step()
            margin = policy.after_epoch(margin, statistics)
            said |= {f"{name} {epoch}": x.item() for name, x in margin.tensors().items()}
        weights = torch.cat([p.detach().flatten() for p in network.parameters()])
        numbers[str(loss)] = said | {f"weight {i}": w for i, w in enumerate(weights.tolist())}
    return numbers


def active_on_this_rank(name: str) -> int:
    """Semihard triplets at epsilon 0.25 whose anchor is this rank's."""
    from marginlab.losses.triplet import triplet_sums

    pairs = Pairs.of(layer()(own_rows(features(name, 0))), own_rows(torch.tensor(LABELS[name])))
    return int(triplet_sums(pairs, Margin.of(0.25).epsilon, "semihard")[1])


def collectives() -> dict[str, Any]:
    """Values and gradients of the collectives, to compare with numbers worked out by hand."""
    rank = distributed.rank()
    x = torch.tensor([[1.0 + rank, 2.0]], requires_grad=True)  # [1, 2]
    every = distributed.gather(x)
    (
        every * torch.tensor([[1.0], [10.0]]) * (rank + 1)
    ).sum().backward()  # rank r weights row 0 by r + 1, row 1 by 10 r + 10
    y = torch.tensor([1.0 + rank], requires_grad=True)
    total = distributed.total(y)
    total.pow(2).sum().backward()
    return {
        "rank, world": (rank, distributed.world(), distributed.is_distributed()),
        "gathered": every.tolist(),
        "gathered labels": distributed.gather(torch.tensor([rank, 7])).tolist(),
        "gather gradient": x.grad.tolist() if x.grad is not None else None,
        "total": (total.tolist(), str(total.dtype)),
        "total gradient": y.grad.tolist() if y.grad is not None else None,
        "flag": (distributed.broadcast_flag(rank == 0), distributed.broadcast_flag(rank == 1)),
        "object": distributed.broadcast_object({"from": rank}),
    }


def fails_on_rank_1() -> None:
    if distributed.rank() == 1:
        raise RuntimeError("the cat sat on the switch")
    distributed.total(torch.zeros(1))
