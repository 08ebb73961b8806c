"""The step in chunks is the plain step: in float64 to the last digits, in ``fit`` to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from marginlab.accumulation import Chunked
from marginlab.losses import AdaTriplet, FineTriplet, Pairs, ProxyAnchor, Triplet, build_seeded
from marginlab.margins import AutoMargin, Margin, NoMargin
from marginlab.networks import MirrorAttention, SmallNetwork
from marginlab.networks.parts import cut
from marginlab.networks.small import Centre
from marginlab.training import fit
from marginlab.values import InputError
from tests.tiny import Keep, tiny_data, tiny_run

LABELS = torch.arange(6).repeat_interleave(4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Centre64(Centre):
    """The small network's, without its float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def network(*end: nn.Module, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, 2), nn.GroupNorm(2, 8), nn.Tanh(), nn.Flatten(), nn.Linear(200, 16)]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []), *end).double().train()


def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).standard_normal((24, 1, 11, 11)))


def step(net: nn.Module, loss: Any, chunk: int | None) -> list[Tensor]:
    """The loss, and the gradient of every parameter, those of the loss last."""
    built = build_seeded(loss, 6, torch.zeros(1, 16, dtype=torch.float64), 3)
    chunked = None if chunk is None else Chunked(cut(net), chunk)
    embeddings = net(images()) if chunked is None else chunked.embed(images())
    total = built(Pairs.of(embeddings, LABELS, 3), Margin.of(epsilon=0.2, beta=0.1)).total
    net.zero_grad()
    total.backward()
    if chunked is not None:
        chunked.backward()
    of_the_loss = list(built.parameters()) if isinstance(built, nn.Module) else []
    return [total.detach()] + [p.grad.clone() for p in (*net.parameters(), *of_the_loss) if p.grad is not None]


@pytest.mark.parametrize("chunk", [1, 5, 12, 24])
@pytest.mark.parametrize(
    "loss", [AdaTriplet(), Triplet("all"), FineTriplet(), ProxyAnchor()], ids=lambda v: type(v).__name__
)
def test_the_gradient_is_that_of_the_plain_step(loss: Any, chunk: int) -> None:
    plain, chunked = step(network(), loss, None), step(network(), loss, chunk)
    assert len(plain) == len(chunked) == (8 if isinstance(loss, ProxyAnchor) else 7)
    for one, other in zip(plain, chunked, strict=True):
        assert one.dtype == torch.float64 and float(one.abs().max()) > 0
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)


def test_what_looks_at_the_batch_at_the_end_looks_at_all_of_it() -> None:
    plain, chunked = (step(network(Centre64(16)), AdaTriplet(), chunk) for chunk in (None, 5))
    for one, other in zip(plain, chunked, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)
    without = step(network(), AdaTriplet(), None)
    assert float((plain[0] - without[0]).abs()) > 1e-3  # the centre does something here


class Dropped(nn.Dropout):
    """Remembers what it let through, or does that again."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.masks: list[Tensor] = []
        self.given: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.given is not None:
            return x * self.given
        mask = super().forward(torch.ones_like(x))
        self.masks.append(mask)
        return x * mask


def test_dropout_is_the_same_in_both_passes() -> None:
    """Against the batch in one piece, with what was let through in the first pass."""
    dropped, loss = Dropped(0.5), AdaTriplet()
    net = nn.Sequential(*network(), dropped)  # type: ignore[misc]
    torch.manual_seed(7)
    found, position = step(net, loss, 5), torch.get_rng_state()
    assert len(dropped.masks) == 10 and len({tuple(m[0].tolist()) for m in dropped.masks}) == 5
    dropped.given = torch.cat(dropped.masks[:5])
    for one, other in zip(step(net, loss, None), found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)
    dropped.given = None
    torch.manual_seed(7)
    Chunked(cut(net), 5).embed(images())
    assert torch.equal(torch.get_rng_state(), position)  # the second pass draws nothing of its own
    assert not torch.equal(torch.manual_seed(7).get_state(), position)  # and the next batch draws others


@pytest.mark.parametrize(
    ("net", "loss", "margin"),
    [
        (SmallNetwork(width=16, dim=16), AdaTriplet(), AutoMargin()),
        (MirrorAttention(SmallNetwork(width=16), dim=16), FineTriplet(), NoMargin()),
        (SmallNetwork(width=16, dim=16), ProxyAnchor(), NoMargin()),
    ],
    ids=["small", "mirror", "proxies"],
)
def test_a_training_in_chunks_is_the_plain_training_up_to_rounding(net: Any, loss: Any, margin: Any) -> None:
    plain, chunked = Keep(), Keep()
    run = tiny_run(network=net, loss=loss, margin=margin, epochs=1)
    fit(run, tiny_data(), plain, device="cpu")
    fit(run, tiny_data(), chunked, device="cpu", chunk=12)  # of 32: the last chunk has 8
    for one, two in zip(plain.rows, chunked.rows, strict=True):
        for key in (k for k in one if not k.startswith("time/")):
            assert two[key] == pytest.approx(one[key], rel=2e-3, abs=2e-4), key
    start, one, two = plain.states[0], plain.states[-1], chunked.states[-1]
    names = [k for k in one if k.startswith(("network/", "loss/")) and one[k].is_floating_point()]
    moved = torch.cat([(one[k] - start[k]).abs().flatten() for k in names])
    apart = torch.cat([(one[k] - two[k]).abs().flatten() for k in names])
    # Adam divides a gradient by its own size: where that is all rounding, a weight may go either way. Such are few.
    assert float(apart.quantile(0.95)) < 1e-3 * float(moved.median())
    assert torch.equal(one["epoch"], two["epoch"])


def test_a_chunk_as_large_as_the_batch_changes_no_bit() -> None:
    runs = []
    for chunk in (None, 32, 100):
        seen = Keep()
        fit(tiny_run(epochs=1), tiny_data(), seen, device="cpu", chunk=chunk)
        runs.append(seen.states[-1])
    assert all(torch.equal(runs[0][k], other[k]) for other in runs[1:] for k in runs[0])


def test_fewer_images_are_in_the_network_at_once() -> None:
    most = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            most.append(len(x) if torch.is_grad_enabled() else 0)
            return x

    step(nn.Sequential(Watched(), *network()), AdaTriplet(), 5)  # type: ignore[misc]
    assert most == [0] * 5 + [5, 5, 5, 5, 4]


def test_refusals() -> None:
    with pytest.raises(InputError, match="chunk must be at least 1 image, or None for the whole batch at once, not 0"):
        fit(tiny_run(), tiny_data(), Keep(), device="cpu", chunk=0)
