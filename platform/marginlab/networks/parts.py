"""A network as a chain of stages, which a batch passes in chunks, and an end, which takes it whole.

Between two stages something is kept of every image, so they are cut where that is little: between the blocks of a residual
network, and of a densely connected one only what each layer adds. Within a stage nothing is kept, but each batch
normalisation costs two more passes (:mod:`marginlab.batchnorm`), so a stage has few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from marginlab.batchnorm import by_batch, in_pieces
from marginlab.networks.small import Centre
from marginlab.values import InputError

FEW = 2  # batch normalisations that are put into one stage, where there is a choice: those of a residual block
MOST = 12  # that one module may have: it would be ten times as slow


class Added(nn.Module):
    """A stage x -> [x, layers(x)], concatenated by channels, of which it gives what is new."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Parts(NamedTuple):
    """``end(stage_n(... stage_1(images)))`` is what the network gives. Modules are the network's own; nothing is copied."""

    stages: tuple[nn.Module, ...]  # images [B, C, H, W] to features [B, ...]; by the batch they only normalise
    end: nn.Module  # features [B, ...] to embeddings [B, D], without parameters


class _Features(nn.Module):
    """What a network does before its ``finish``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inside = nn.ModuleList(m for m in network.children() if m is not network.finish)
        self.features: Callable[[Tensor], Tensor] = network.features  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


def cut(network: nn.Module) -> Parts:
    """Cut a network, in training mode, into stages; where it does not normalise by the batch, it is one.

    What is done one after the other is known of a ``Sequential``; of MONAI's ResNet and DenseNet; of a module with a method
    ``chain()`` that lists what ``forward`` does, module by module; and of one with ``features(images)`` and a module
    ``finish``, where ``forward(images) = finish(features(images))``. Any other is one link of the chain.

    Raises:
        InputError: it looks at the batch in another way than by batch normalisation, and not only at its end; or a link has
            too many of those.
    """
    chain = _chain(network)
    before = next((i for i, link in enumerate(chain) if any(map(_centres, link.modules()))), len(chain))
    body, end = chain[:before], nn.Sequential(*chain[before:])
    parameters = [p for link in body for p in link.parameters()]
    if chain[before:] and (not parameters or any(True for _ in end.parameters()) or any(map(by_batch, end.modules()))):
        raise InputError(
            "The network cannot take a batch in chunks: it subtracts the batch's mean (Centre) before its end, so each image's "
            "embedding depends on those beside it. Leave chunk out, or take one that looks at each image alone."
        )
    for link in body:
        _check(link)
    if isinstance(body[-1], Added):
        body.append(nn.Identity())
    return Parts(tuple(_stages(body)), end)


def _check(link: nn.Module) -> None:
    norms = [m for m in link.modules() if by_batch(m)]
    other = next((type(m).__name__ for m in norms if not in_pieces(m)), None)
    if other is not None:
        raise InputError(
            f"The network cannot take a batch in chunks: {other} normalises by the batch in a way of its own. Leave chunk out, "
            "or use torch.nn's batch normalisation."
        )
    if len(norms) > MOST:
        raise InputError(
            f"The network cannot take a batch in chunks as it is: its {type(link).__name__} has {len(norms)} batch "
            "normalisations, and each would cost the whole of it two more passes. Make it an nn.Sequential of its blocks, or "
            f"give it a method chain() that lists them in order (at most {MOST} in one), or leave chunk out."
        )


def _stages(chain: list[nn.Module]) -> list[nn.Module]:
    stages: list[list[nn.Module]] = []
    for link in chain:
        alone = not stages or isinstance(link, Added) or isinstance(stages[-1][0], Added)
        if alone or (_norms(link) and _norms(*stages[-1], link) > FEW):
            stages.append([])
        stages[-1].append(link)
    return [links[0] if len(links) == 1 else nn.Sequential(*links) for links in stages]


def _norms(*links: nn.Module) -> int:
    return sum(by_batch(m) for link in links for m in link.modules())


def _chain(module: nn.Module) -> list[nn.Module]:
    """What a module does, one after the other; what looks at each image alone stays in one piece."""
    if not _looks(module):
        return [module]
    links = _links(module)
    return [module] if links is None else [x for link in links for x in _chain(link)]


def _links(module: nn.Module) -> list[nn.Module] | None:
    finish = getattr(module, "finish", None)
    named = hasattr(module, "features") and isinstance(finish, nn.Module)
    if named and not any(_looks(m) for m in module.children() if m is not finish):
        return [_Features(module), finish]  # type: ignore[list-item]
    if callable(getattr(module, "chain", None)):
        return list(module.chain())  # type: ignore[operator]
    if named:
        return [_Features(module), finish]  # type: ignore[list-item]
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return list(module)  # not children(), which names a layer once that comes twice
    known = _MONAI.get((type(module).__module__, type(module).__name__))  # not imported for this: it takes seconds
    return None if known is None else known(module)


def _resnet(module: nn.Module) -> list[nn.Module]:
    start = ["conv1", "bn1", "act", *([] if module.no_max_pool else ["maxpool"])]
    links = [module.get_submodule(name) for name in (*start, "layer1", "layer2", "layer3", "layer4", "avgpool")]
    return [*links, nn.Flatten(1), *([] if module.fc is None else [module.get_submodule("fc")])]


def _densenet(module: nn.Module) -> list[nn.Module]:
    return [module.get_submodule("features"), module.get_submodule("class_layers")]


_MONAI: dict[tuple[str, str], Callable[[nn.Module], list[nn.Module]]] = {
    ("monai.networks.nets.resnet", "ResNet"): _resnet,
    ("monai.networks.nets.densenet", "DenseNet"): _densenet,
    ("monai.networks.nets.densenet", "_DenseLayer"): lambda module: [Added(module.get_submodule("layers"))],
}


def _looks(module: nn.Module) -> bool:
    """Whether anything inside lets images of a batch change each other's embeddings."""
    return any(_centres(m) or by_batch(m) for m in module.modules())


def _centres(module: nn.Module) -> bool:
    return module.training and isinstance(module, Centre)
