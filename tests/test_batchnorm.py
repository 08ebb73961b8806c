"""Networks with batch normalisation inside, in chunks and in one piece: in float64 the same steps to the last digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginlab.accumulation import Chunked
from marginlab.losses import AdaTriplet, Pairs
from marginlab.margins import AutoMargin, PerBatch, observe
from marginlab.networks import DenseNet121, MirrorAttention, ResNet18, build_seeded
from marginlab.networks.parts import cut
from marginlab.values import InputError
from tests.benchmarks.alive import Alive
from tests.ddp.chunk_cases import Block, Unit64, small

LABELS = torch.arange(3).repeat_interleave(2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def published(value: Any) -> nn.Module:
    network = build_seeded(value, 1, 1).double().train()
    if isinstance(value, MirrorAttention):
        network.finish = Unit64()
        torch.manual_seed(4)
        with torch.no_grad():  # it starts at zero, as if there were no attention
            for p in network.attention.out.parameters():  # type: ignore[union-attr]
                p.normal_(0, 0.1)
    else:
        network[1] = Unit64()  # type: ignore[operator]
    return network


def trained(network: nn.Module, size: int, chunk: int | None, steps: int = 3) -> dict[str, Tensor]:
    """Losses, margins, parameters and buffers after some steps of gradient descent, and the last gradients."""
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    policy, out = PerBatch(AutoMargin()), {}
    margin = policy.start()
    for k in range(steps):
        images = torch.randn(len(LABELS), 1, size, size, generator=generator, dtype=torch.float64)
        chunked = None if chunk is None else Chunked(cut(network), chunk)
        embeddings = network(images) if chunked is None else chunked.embed(images)
        pairs = Pairs.of(embeddings, LABELS, 1)
        total = AdaTriplet()(pairs, margin).total
        margin = policy.after_batch(margin, observe(policy, pairs, margin))
        optimizer.zero_grad()
        total.backward()
        if chunked is not None:
            chunked.backward()
        optimizer.step()
        out |= {f"loss {k}": total.detach(), f"epsilon {k}": margin.epsilon, f"beta {k}": margin.beta}
    out |= {f"gradient {k}": p.grad for k, p in network.named_parameters() if p.grad is not None}
    return out | network.state_dict()


def the_same(plain: dict[str, Tensor], chunked: dict[str, Tensor]) -> None:
    assert plain.keys() == chunked.keys()
    for key, one in plain.items():
        torch.testing.assert_close(chunked[key], one, rtol=1e-10, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize(
    ("value", "size", "steps"),
    [(ResNet18(dim=8), 16, 3), (MirrorAttention(ResNet18(), reduction=8), 16, 1), (DenseNet121(dim=8), 32, 1)],
    ids=["resnet", "mirror", "densenet"],
)
def test_published_networks_train_as_in_one_piece(value: Any, size: int, steps: int) -> None:
    plain = trained(published(value), size, None, steps)
    assert any(k.endswith("num_batches_tracked") for k in plain) and float(plain["loss 0"]) > 0
    the_same(plain, trained(published(value), size, 4, steps))


@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_batch_normalisation_of_every_kind(chunk: int) -> None:
    the_same(trained(small(), 9, None), trained(small(), 9, chunk))


def test_a_network_of_which_nothing_is_known() -> None:
    """One stage, with as many passes as it takes."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.blocks = nn.ModuleList([Block(1, 4), Block(4, 4), nn.Flatten(), nn.Linear(324, 6), Unit64()])

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    assert len(cut(Whole().train()).stages) == 1
    the_same(trained(Whole().double(), 9, None), trained(Whole().double(), 9, 4))


def test_dropout_is_the_same_in_all_passes() -> None:
    """The derivative along the gradient, from two losses at the same random numbers."""
    torch.manual_seed(1)
    drop = nn.Dropout(0.4)
    network = nn.Sequential(Block(1, 4, drop), Block(4, 4, drop), nn.Flatten(), nn.Linear(324, 6)).double().train()
    images, weights = (torch.randn(6, *shape, dtype=torch.float64) for shape in ((1, 9, 9), (6,)))

    def loss(*, backward: bool = False) -> float:
        torch.manual_seed(5)
        chunked = Chunked(cut(network), 4)
        total = (chunked.embed(images).tanh() * weights).sum()
        if backward:
            total.backward()
            chunked.backward()
        return float(total.detach())

    loss(backward=True)
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    size, found = float(sum((g**2).sum() for g in gradients)), []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for p, g in zip(network.parameters(), gradients, strict=True):
                p += step * g
        found.append(loss())
    assert (found[0] - found[1]) / 2e-6 == pytest.approx(size, rel=1e-5)


def test_less_memory() -> None:
    """Bytes of tensors that exist at once, without the parameters' gradients."""

    def most(value: Any, chunk: int | None) -> int:
        network = build_seeded(value, 1, 0).train()
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        images = torch.randn(8, 1, 96, 96)
        with Alive() as alive:
            chunked = None if chunk is None else Chunked(cut(network), chunk)
            total = (network(images) if chunked is None else chunked.embed(images)).sum()
            total.backward()
            if chunked is not None:
                chunked.backward()
        return alive.most

    plain, chunked = most(ResNet18(dim=8), None), most(ResNet18(dim=8), 2)
    assert chunked < plain / 2  # 9 MB of it are the gradient of the largest layer, as it is made


def test_a_network_that_changes_from_pass_to_pass_is_refused() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms, self.calls = nn.ModuleList([nn.BatchNorm2d(1), nn.BatchNorm2d(1)]), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return F.relu(self.norms[self.calls % 2](x))

    with pytest.raises(InputError, match="calls other batch normalisations in one pass than in another"):
        Chunked(cut(Sometimes().train()), 1).embed(torch.randn(3, 1, 4, 4))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Chunked(cut(nn.Sequential(nn.BatchNorm1d(2)).train()), 1).embed(torch.randn(1, 2))
