"""Whole trainings that the ranks and the single process both run for test_network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from marginlab.executing import execute
from marginlab.networks import MirrorAttention, ResNet18, SelfAttention, SmallNetwork
from marginlab.training import TrainingFailed, fit
from marginlab.values import value
from tests.tiny import TRAINING, Keep, tiny_data, tiny_run


class _Frozen(nn.Module):
    """A network whose batch normalisation keeps to its running statistics, in training too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x)

    def train(self, mode: bool = True) -> _Frozen:
        super().train(mode)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eval()
        return self


@value
class Frozen:
    """Another network, with its batch normalisation frozen."""

    network: Any

    def build(self, channels: int) -> nn.Module:
        return _Frozen(self.network.build(channels))


NETWORKS: dict[str, Any] = {
    "small": TRAINING.network,
    "resnet": Frozen(ResNet18(dim=16)),
    "mirror": MirrorAttention(SmallNetwork(width=16), dim=16),
    "self": SelfAttention(SmallNetwork(width=16)),
    "mirror resnet": Frozen(MirrorAttention(ResNet18(), reduction=8)),
}


def trained(network: str, chunk: int | None = None) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Rows (on rank 0) and the final weights (rank 0) of a short training."""
    seen = Keep()
    epochs = 1 if "resnet" in network else 2
    fit(tiny_run(network=NETWORKS[network], epochs=epochs), tiny_data(), seen, device="cpu", chunk=chunk)
    return seen.rows, ({k: v.numpy() for k, v in seen.states[-1].items()} if seen.states else {})


def stopped(epoch: int) -> int:
    seen = Keep(stop=epoch)
    fit(tiny_run(), tiny_data(), seen, device="cpu")
    return len(seen.rows)


def diverged() -> str:
    try:
        fit(tiny_run(lr=1e30), tiny_data(), Keep(), device="cpu")
    except TrainingFailed as e:
        return str(e)
    return ""


def executed(path: str, packed: str) -> str | None:
    result = execute(Path(path), Path(packed), lambda epoch, row: True, open_test=True)
    return None if result is None else str(result["state"])
