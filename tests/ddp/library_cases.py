"""What the ranks run for test_library; the same functions make the single-process reference."""

from __future__ import annotations

from typing import Any

import loss_cases
import torch
from torch import nn

import marginlab.losses
from marginlab import distributed
from marginlab.losses import CrossBatchMemory, MultiSimilarity, Pairs, SmoothAP, build_seeded
from marginlab.losses.library import LibraryLoss
from marginlab.margins import Margin, NoMargin
from marginlab.training import _Trainer
from tests.tiny import tiny_data, tiny_run

EVERY: list[Any] = [v() for v in vars(marginlab.losses).values() if isinstance(v, type) and issubclass(v, LibraryLoss)]
LOSSES = [v for v in EVERY if not isinstance(v, CrossBatchMemory)]
LOSSES += [CrossBatchMemory(size=20), CrossBatchMemory(MultiSimilarity(), 20)]  # full within the third batch


def steps(loss: Any) -> dict[str, Any]:
    """One step on every kind of batch, one after the other; proxies and memory go along. Float64."""
    numbers, network = {}, loss_cases.layer()
    built = build_seeded(loss, 8, network(loss_cases.features("no positive", 0)).detach(), 3)
    proxies = list(built.parameters()) if isinstance(built, nn.Module) else []
    for seed, (name, labels) in enumerate(loss_cases.LABELS.items()):
        whole = torch.tensor(labels)
        if isinstance(loss, SmoothAP) and len(set(whole.bincount().tolist()) - {0}) > 1:
            continue
        own = loss_cases.own_rows(loss_cases.features(name, seed))
        terms = built(Pairs.of(network(own), loss_cases.own_rows(whole)), Margin.of())
        network.zero_grad()
        terms.total.backward()
        distributed.broadcast_gradients(proxies)
        said = {"total": terms.total.item()}
        said |= {f"part {k}": v.item() for k, v in terms.parts.items()}
        said |= {f"active {k}": v.item() for k, v in terms.active.items()}
        said |= {f"gradient {j}": g for j, g in enumerate(loss_cases.gradients(network))}
        for p in proxies:
            assert p.grad is not None
            said |= {f"proxies {j}": g for j, g in enumerate(p.grad.flatten().tolist())}
            p.data -= 0.1 * p.grad
            p.grad = None
        numbers[name] = said
    return numbers


def every_loss() -> dict[str, Any]:
    return {f"{loss}, {name}": said for loss in LOSSES for name, said in steps(loss).items()}


def broadcast_gradients() -> list[Any]:
    """Of two parameters, one without a gradient; each rank's own gradient is its rank + 1."""
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)]
    parameters[0].grad = torch.full((2,), distributed.rank() + 1.0)
    distributed.broadcast_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def carried(loss: Any) -> tuple[dict[str, list[float]], list[float]]:
    """What a loss carries on this rank after two epochs of the real training loop, and the epochs' mean losses."""
    trainer = _Trainer(tiny_run(loss=loss, margin=NoMargin()), tiny_data(), torch.device("cpu"))
    means = [trainer.train_epoch(epoch, Margin.of())[0]["train/loss"] for epoch in (1, 2)]
    assert trainer.carried is not None
    return {k: v.flatten().tolist() for k, v in trainer.carried.state_dict().items()}, means
