"""Mirror attention (Fang et al. 2023) on any backbone, and the self-attention that it is to be compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from marginlab.networks.pooling import Gem, linear
from marginlab.networks.small import SmallNetwork
from marginlab.networks.trunk import Trunk, check_backbone
from marginlab.values import InputError, value

MIRRORS = {"h": 3, "v": 2}  # view and the axis that it is flipped along: left-right, up-down


class ViewAttention(nn.Module):
    """Y_m = U_m (V_m A_m^T) + X_a for the two views m = h, v; shapes [B, C, H, W], N = H W, d = C / reduction.

    K = ReLU(norm(W_a X_a)), Q_m = ReLU(norm(W_m X_m)), V_m = G_m X_a  [B, d, N]
    A_m = softmax(Q_m^T K / sqrt(d)) over the last axis                [B, N, N]

    Row i of A_m belongs to position i of the mirrored map and weighs the positions of the original one, whose values are
    summed: position i of Y_m is the original there, plus what the original shows wherever it resembles what the mirror
    shows at i. U_m starts at zero, so both Y start as X_a; all other weights start Kaiming-normal.

    Memory: the backward pass keeps A_h and A_v, 2 B N^2 x 4 bytes; under a GPU's bfloat16 autocast, where a softmax stays
    float32, a copy of half the size besides. One more A lives for a moment in either direction. At B = 128: 4 MB for the
    8 x 8 map of a ResNet-18 and 256 x 256 pixels, 67 MB for 16 x 16, 1.1 GB for 32 x 32.
    """

    def __init__(self, trunk: Trunk, reduction: int) -> None:
        super().__init__()
        d = trunk.channels // reduction
        self.key = _projection(trunk, d)
        self.query = nn.ModuleDict({m: _projection(trunk, d) for m in MIRRORS})
        self.value = nn.ModuleDict({m: _conv(trunk.channels, d, bias=True) for m in MIRRORS})
        self.out = nn.ModuleDict({m: _conv(d, trunk.channels, bias=True) for m in MIRRORS})
        for out in self.out.values():
            nn.init.zeros_(out.weight)  # type: ignore[arg-type]

    def weights(self, view: str, key: Tensor, x: Tensor) -> Tensor:
        """A_m, [B, N, N]; rows sum to 1. ``key`` is K [B, d, N], ``x`` the view's map."""
        query = self.query[view](x).flatten(2)  # [B, d, N]
        return torch.softmax((query * query.shape[1] ** -0.5).mT @ key, dim=-1)

    def forward(self, original: Tensor, views: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        key = self.key(original).flatten(2)
        h, v = (self._attend(m, key, original, views[m]) for m in MIRRORS)
        return h, v

    def _attend(self, view: str, key: Tensor, original: Tensor, x: Tensor) -> Tensor:
        values = self.value[view](original).flatten(2)
        summed = values @ self.weights(view, key, x).mT  # [B, d, N], over the positions of the original
        out: Tensor = original + self.out[view](summed.unflatten(2, original.shape[2:]))
        return out


def _conv(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 1, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _projection(trunk: Trunk, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv(trunk.channels, outputs, bias=False), trunk.norm(outputs), nn.ReLU())


class TwoViews(nn.Module):
    """Images [B, c, H, W] to unit descriptors [B, D]: the half of view h, then the half of view v."""

    def __init__(self, trunk: Trunk, reduction: int, dim: int | None, *, mirrored: bool) -> None:
        super().__init__()
        half = trunk.channels if dim is None else dim // 2
        self.mirrored = mirrored
        self.maps = trunk.maps
        self.attention = ViewAttention(trunk, reduction)
        self.pool = Gem()
        self.head = linear(
            trunk.channels, None if dim is None else half
        )  # one for both, so that halves stay comparable
        self.finish = trunk.finish(2 * half)

    def views(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Feature maps of the images and of their mirrors, from one pass of the backbone over [3 B, c, H, W]."""
        if not self.mirrored:
            x = self.maps(images)
            return x, dict.fromkeys(MIRRORS, x)
        original, *mirrors = self.maps(torch.cat([images, *(images.flip(a) for a in MIRRORS.values())])).chunk(3)
        return original, dict(zip(MIRRORS, mirrors, strict=True))

    def halves(self, images: Tensor) -> Tensor:
        """[B, 2, D / 2], before the normalisation."""
        return self.described(*self.views(images))

    def described(self, original: Tensor, views: dict[str, Tensor]) -> Tensor:
        """Feature maps to [B, 2, D / 2]."""
        return torch.stack([self.head(self.pool(y)) for y in self.attention(original, views)], dim=1)

    def features(self, images: Tensor) -> Tensor:
        return self.halves(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.finish(self.features(images))
        return out

    def chain(self) -> list[nn.Module]:
        """``forward``, one after the other, for :func:`marginlab.networks.parts.cut`; views lie beside their image here."""
        return [*([_Views()] if self.mirrored else []), self.maps, _Described(self), self.finish]


class _Views(nn.Module):
    """Images [B, c, H, W] to [3 B, c, H, W]: an image, its left-right and its up-down mirror image, the next image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images, *(images.flip(a) for a in MIRRORS.values())], dim=1).flatten(0, 1)


class _Described(nn.Module):
    """Feature maps [B, C, h, w], or [3 B, C, h, w] as of :class:`_Views`, to [B, D]."""

    def __init__(self, network: TwoViews) -> None:
        super().__init__()
        self.mirrored, self.described = network.mirrored, network.described
        self.inside = nn.ModuleList([network.attention, network.pool, network.head])

    def forward(self, maps: Tensor) -> Tensor:
        original, *views = (maps[i::3] for i in range(3)) if self.mirrored else [maps] * 3
        return self.described(original, dict(zip(MIRRORS, views, strict=True))).flatten(1)


@value
class MirrorAttention:
    """A backbone that looks at an image and, with the image's own features as keys, at its two mirror images.

    The image, its left-right and its up-down mirror image go through one shared backbone; :class:`ViewAttention` makes two
    maps of the three; the descriptor is their two generalised means (:class:`Gem`), concatenated and scaled to length 1.
    Its halves are ``e[:, :D / 2]`` and ``e[:, D / 2:]``: their cosine is the degree of the fine triplet loss, 1 at the start.

    Source: J. Fang et al., Biomed. Signal Process. Control 80 (2023) 104277; the module is that of the authors' repository
    (fjssharpsword/FundusDR, nets/MANet.py), whose paper was not at hand. Where it differs from the released code:

    - Each view has its own W_m. There W_v projects both views and W_h nothing; in a later form the vertical view never
      reaches the attention at all.
    - The mirrors are mirrors, in training and in the test. There each is flipped with probability 1/2, each time anew:
      half the "mirrors" are the original, and an image's descriptor changes from call to call.
    - The sum runs over the positions that the softmax normalises, those of the original, from which the values come:
      V A^T. There it is V A, over positions of the mirror with the original's values, by weights that do not sum to 1.
    - No spatial gate on the input image, no decoder, no classification head. ``dim`` adds a linear layer to each half.
    - The projections normalise as the backbone does (there: always by batch): by batch on ResNet18 and DenseNet121, by
      groups of channels on SmallNetwork, so that a network without batch normalisation stays one and the number of workers
      changes nothing. With it, statistics are those of the three views together, in training as in the running
      averages: an image's mirrors count as images of the batch (three passes would normalise each view by itself).

    Cost: the backbone sees three images for one, in training and when embedding, and keeps three images' activations; see
    ViewAttention for the rest. Measured on one core, forward and backward, 2.7 to 3.2 times the plain backbone.
    """

    backbone: Any = SmallNetwork()  # its feature map is used, its own pooling and linear layer are not
    reduction: int = 2  # of the backbone's C channels to the d that attention compares (k in the source)
    dim: int | None = None  # of the descriptor, even; None: 2 C, without a linear layer, as in the source

    def check(self) -> None:
        _check("MirrorAttention", self.backbone, self.reduction, self.dim)

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim or 2 C], initialised from torch's current RNG."""
        return _built("MirrorAttention", self.backbone.trunk(channels), self.reduction, self.dim, mirrored=True)


@value
class SelfAttention:
    """The ablation of :class:`MirrorAttention`: the same module, in which the image takes the place of its mirror images.

    Two heads of plain self-attention with a residual. Parameters, their initial values at a given seed, and the descriptor's
    form are the same, 7 C d + 8 d + 2 C + 1 beside backbone and linear layer; what is missing is the mirror images, and
    with them two thirds of the backbone's work. (A single self-attention would have 4/7 of the parameters.)
    """

    backbone: Any = SmallNetwork()
    reduction: int = 2
    dim: int | None = None

    def check(self) -> None:
        _check("SelfAttention", self.backbone, self.reduction, self.dim)

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim or 2 C], initialised from torch's current RNG."""
        return _built("SelfAttention", self.backbone.trunk(channels), self.reduction, self.dim, mirrored=False)


def _check(owner: str, backbone: Any, reduction: int, dim: int | None) -> None:
    check_backbone(owner, backbone)
    if reduction < 1:
        raise InputError(f"{owner}.reduction must be at least 1, not {reduction}.")
    if dim is not None and (dim < 2 or dim % 2):
        raise InputError(f"{owner}.dim must be even, for its two halves, and at least 2, or None, not {dim}.")


def _built(owner: str, trunk: Trunk, reduction: int, dim: int | None, *, mirrored: bool) -> nn.Module:
    if trunk.channels % reduction:
        raise InputError(f"{owner}.reduction ({reduction}) must divide the backbone's {trunk.channels} channels.")
    return TwoViews(trunk, reduction, dim, mirrored=mirrored)
