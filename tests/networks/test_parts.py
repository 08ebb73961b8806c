"""Networks cut into stages and an end give what they give in one piece; those that cannot be cut say why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marginlab.networks import (
    DenseNet121,
    GemPooling,
    MirrorAttention,
    ResNet18,
    SelfAttention,
    SmallNetwork,
    build_seeded,
)
from marginlab.networks.parts import Added, Parts, cut
from marginlab.networks.small import Centre
from marginlab.values import InputError

SMALL = SmallNetwork(width=16)


def through(parts: Parts, images: Tensor, chunk: int) -> Tensor:
    """The network chunk by chunk, where that changes nothing, and its end on all."""
    chunks = list(images.split(chunk))
    for stage in parts.stages:
        out = [stage(x.clone()) for x in chunks]
        chunks = [torch.cat(pair, 1) for pair in zip(chunks, out, strict=True)] if isinstance(stage, Added) else out
    whole: Tensor = parts.end(torch.cat(chunks))
    return whole


@pytest.mark.parametrize(
    "value", [SMALL, GemPooling(SMALL, dim=8), MirrorAttention(SMALL, dim=8), SelfAttention(SMALL)]
)
def test_what_looks_at_the_batch_at_the_end_alone_leaves_one_stage(value: Any) -> None:
    network, again = (build_seeded(value, 1, 0).train() for _ in range(2))
    parts = cut(network)
    images = torch.rand(6, 1, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(through(parts, images, 4), again(images), atol=1e-6, rtol=0)
    assert len(parts.stages) == 1 and not list(parts.end.parameters())
    mean, other = ({k: v for k, v in n.state_dict().items() if k.endswith("mean")} for n in (network, again))
    assert len(mean) == 1
    for key in mean:  # the running mean saw the batch once, and not its pieces
        torch.testing.assert_close(mean[key], other[key])


@pytest.mark.parametrize(
    ("value", "stages"),
    [
        (ResNet18(dim=8), 9),  # the first convolution, eight blocks
        (GemPooling(ResNet18(), dim=8), 9),
        (MirrorAttention(ResNet18(), reduction=8), 10),
        (SelfAttention(ResNet18(), reduction=8), 10),
        (DenseNet121(dim=8), 1 + 58 + 3 + 1),  # dense layers, transitions, the last normalisation and the head
        (GemPooling(DenseNet121(), dim=8), 63),
    ],
)
def test_published_networks_are_cut_between_their_blocks(value: Any, stages: int) -> None:
    network = build_seeded(value, 1, 0).train()
    parts = cut(network)
    assert len(parts.stages) == stages
    assert {id(p) for stage in parts.stages for p in stage.parameters()} == {id(p) for p in network.parameters()}
    network.eval()  # each image by itself
    images = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(through(parts, images, 2), network(images), atol=1e-5, rtol=0)


def test_a_network_that_looks_at_each_image_alone_is_one_stage() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())
    assert cut(network).stages == (network,)
    frozen = build_seeded(ResNet18(dim=8), 1, 0).eval()
    assert cut(frozen).stages == (frozen,)  # batch normalisation that keeps to its running statistics


def test_a_chain_of_layers_is_cut_after_two_normalisations() -> None:
    layers = [m for _ in range(5) for m in (nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(inplace=True))]
    stages = cut(nn.Sequential(nn.Sequential(*layers[:7]), nn.Sequential(*layers[7:]), nn.Flatten()).train()).stages
    assert [len(list(stage.children())) for stage in stages] == [7, 6, 3]


class _Inside(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class _Own(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (_Inside(nn.Linear(4, 4), Centre(4)), "subtracts the batch's mean .Centre. before its end"),
        (nn.Sequential(nn.Linear(4, 4), Centre(4), nn.Linear(4, 4)), "subtracts the batch's mean"),
        (nn.Sequential(nn.Linear(4, 4), Centre(4), nn.BatchNorm1d(4, affine=False)), "subtracts the batch's mean"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), _Own(1)), "_Own normalises by the batch in a way of its own"),
        (
            _Inside(*[nn.BatchNorm2d(1) for _ in range(13)]),
            "its _Inside has 13 batch normalisations, .* give it a method chain.. that lists them in order",
        ),
    ],
)
def test_what_cannot_be_cut_says_why(network: nn.Module, says: str) -> None:
    with pytest.raises(InputError, match=f"cannot take a batch in chunks.*{says}"):
        cut(network.train())


def test_what_cannot_be_cut_says_how_it_could() -> None:
    network = _Inside(*[nn.BatchNorm2d(1) for _ in range(13)])
    network.chain = lambda: [network.layers]  # type: ignore[assignment]
    assert len(cut(network.train()).stages) == 7
