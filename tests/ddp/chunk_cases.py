"""Steps in chunks of networks with batch normalisation, on ranks and in a single process."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginlab import distributed
from marginlab.accumulation import Chunked
from marginlab.networks.parts import cut


class Unit64(nn.Module):
    """Rows of length 1, without the networks' float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class Block(nn.Module):
    """A residual block, which works in place: [b, inputs, h, w] to [b, outputs, h, w]."""

    def __init__(self, inputs: int, outputs: int, between: nn.Module | None = None) -> None:
        super().__init__()
        self.start = nn.Conv2d(inputs, outputs, 1)
        self.convs = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False) for _ in "12")
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in "12")
        self.between = between or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        out = F.relu(self.norms[0](self.convs[0](x)), inplace=True)
        out = self.norms[1](self.convs[1](self.between(out)))
        out += x
        return F.relu(out, inplace=True)


def small(*, twice: bool = True) -> nn.Module:
    """Every kind of batch normalisation; images [b, 1, 9, 9]. twice: one layer comes twice, which torch does not synchronise."""
    torch.manual_seed(0)
    again = nn.BatchNorm2d(4, momentum=None)
    layers: list[nn.Module] = [nn.ReLU(inplace=True), Block(1, 4), again, nn.Conv2d(4, 4, 3, bias=False)]
    layers += [again if twice else nn.BatchNorm2d(4, momentum=None)]
    layers += [nn.Tanh(), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2, eps=0.1)]
    layers += [nn.Flatten(), nn.BatchNorm1d(50, track_running_stats=False), nn.Linear(50, 6), nn.BatchNorm1d(6)]
    return nn.Sequential(*layers, Unit64()).double().train()


def steps(chunk: int | None, *, shared: bool) -> list[float]:
    """Three steps on 8 images, of which each rank has its share: losses, parameters and running statistics."""
    network = small(twice=not shared)
    if shared and distributed.is_distributed():
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    parallel = network
    if chunk is None and distributed.is_distributed():
        parallel = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator, said = torch.Generator().manual_seed(1), []
    for _ in range(3):
        images = torch.randn(8, 1, 9, 9, generator=generator, dtype=torch.float64)
        own = images.chunk(distributed.world())[distributed.rank()]
        chunked = None if chunk is None else Chunked(cut(network), chunk)
        embeddings = distributed.gather(parallel(own) if chunked is None else chunked.embed(own))
        total = ((embeddings @ embeddings.T) ** 3).sum()
        optimizer.zero_grad()
        total.backward()
        if chunked is not None:
            chunked.backward()
        optimizer.step()
        said.append(float(total.detach()))
    distributed.broadcast_buffers(network)
    return said + torch.cat([x.double().flatten() for x in network.state_dict().values()]).tolist()


def synchronised(chunk: int | None) -> list[float]:
    return steps(chunk, shared=True)


def apart(chunk: int | None) -> list[float]:
    return steps(chunk, shared=False)
