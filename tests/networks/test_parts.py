"""Networks cut in two give what they give in one piece, and those that cannot be cut say why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from marginlab.networks import GemPooling, MirrorAttention, ResNet18, SelfAttention, SmallNetwork, build_seeded
from marginlab.networks.parts import cut
from marginlab.networks.small import Centre
from marginlab.values import InputError

SMALL = SmallNetwork(width=16)


@pytest.mark.parametrize(
    "value", [SMALL, GemPooling(SMALL, dim=8), MirrorAttention(SMALL, dim=8), SelfAttention(SMALL)]
)
def test_the_end_of_the_body_is_the_network(value: Any) -> None:
    network, again = (build_seeded(value, 1, 0).train() for _ in range(2))
    body, end = cut(network)
    images = torch.rand(6, 1, 40, 40)
    with torch.no_grad():
        whole = again(images)
        pieces = torch.cat([body(x) for x in images.split(4)])
        torch.testing.assert_close(end(pieces), whole, atol=1e-6, rtol=0)
        assert [tuple(body(images[:1]).shape), len(list(end.parameters()))] == [(1, whole.shape[1]), 0]
    mean, other = ({k: v for k, v in n.state_dict().items() if k.endswith("mean")} for n in (network, again))
    assert len(mean) == 1
    for key in mean:  # the running mean saw the batch once, and not its pieces
        torch.testing.assert_close(mean[key], other[key])
    assert {id(p) for p in body.parameters()} == {id(p) for p in network.parameters()}


def test_a_network_that_looks_at_each_image_alone_is_its_own_body() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())
    assert cut(network).body is network
    frozen = build_seeded(ResNet18(dim=8), 1, 0).eval()
    assert cut(frozen).body is frozen  # batch normalisation that keeps to its running statistics


class _Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), Centre(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), "BatchNorm2d"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.SyncBatchNorm(4), nn.Flatten()), "SyncBatchNorm"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 4)), "BatchNorm1d"),
        (_Inside(), "Centre"),
        (build_seeded(ResNet18(dim=8), 1, 0), "BatchNorm2d"),
        (build_seeded(GemPooling(ResNet18()), 1, 0), "BatchNorm2d"),
    ],
)
def test_normalisation_by_the_batch_inside_is_refused(network: nn.Module, names: str) -> None:
    with pytest.raises(InputError, match=rf"cannot take a batch in chunks: it normalises by the batch \({names}\)"):
        cut(network.train())
