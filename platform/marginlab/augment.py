"""The training transforms of AdaTriplet, batched, on the device that trains.

Order and semantics are those published (solt 0.1.9 in imedslab/AdaTriplet): noise, rotation, random crop, gamma. The
order matters: noise comes first, so the rotation smooths it, and its blend also greys the image. Two steps keep the
result independent of how many workers train: :meth:`Augment.draw` gives the random numbers of the whole *global* batch
as a pure function, a rank takes its rows, and :meth:`Augment.train` is a plain function of images and rows.

Shapes: ``B`` images of the global batch, ``b`` of this rank, ``C`` channels, ``S`` pixels per side as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marginlab.values import InputError, stable_seed, value

NOISE_OFFSETS = 2**20  # places in the noise bank where an image's noise may begin; float32 holds each exactly
LEVEL = float(np.float32(1 / 255))
PIECE = 2**18  # pixels: with what is made of them they stay in a core's cache
COLUMNS = ("noise_gain", "noise_offset", "angle", "top", "left", "gamma")


@value
class Augment:
    """Noise, rotation, crop and gamma, each but the crop applied with the same probability to each image."""

    crop: int = 256  # pixels per side of what the network sees
    rotate: float = 10.0  # degrees, at most, either way; what enters from outside is black
    noise: float = 0.3  # largest share of noise in the blend
    gamma: tuple[float, float] = (0.5, 1.5)  # above 1 brightens
    probability: float = 0.5

    def check(self) -> None:
        if self.crop < 1:
            raise InputError(f"Augment.crop must be at least 1 pixel, not {self.crop}.")
        if not 0 <= self.probability <= 1:
            raise InputError(f"Augment.probability must lie in [0, 1], not {self.probability}.")
        if not 0 <= self.noise <= 1:
            raise InputError(f"Augment.noise is a share of the blend and must lie in [0, 1], not {self.noise}.")
        if not 0 <= self.rotate <= 180:
            raise InputError(f"Augment.rotate must lie in [0, 180] degrees, not {self.rotate}.")
        if len(self.gamma) != 2 or not 0 < self.gamma[0] <= self.gamma[1]:
            raise InputError(f"Augment.gamma must be (lowest, highest) with 0 < lowest <= highest, not {self.gamma}.")
        object.__setattr__(self, "gamma", tuple(float(g) for g in self.gamma))  # (0.5, 1) and (0.5, 1.0) are equal

    def draw(self, seed: int, epoch: int, step: int, count: int) -> np.ndarray:
        """The parameters of every image of a global batch, float32 [B, 6], columns as in ``COLUMNS``.

        Switched-off transforms have the parameter that changes nothing: gain 0, angle 0, gamma 1. ``top`` and ``left``
        are shares of the room for the crop, because the size of the images is not known here.
        """
        u = np.random.default_rng(stable_seed("augment", seed, epoch, step)).random((count, 9))
        on = u[:, 6:] < self.probability
        low, high = self.gamma
        columns = [
            np.where(on[:, 0], u[:, 0] * self.noise, 0),
            np.floor(u[:, 1] * NOISE_OFFSETS),
            np.where(on[:, 1], (2 * u[:, 2] - 1) * self.rotate, 0),
            u[:, 3],
            u[:, 4],
            np.where(on[:, 2], low + u[:, 5] * (high - low), 1),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    @torch.no_grad()
    def train(self, images: Tensor, draws: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Augmented, normalised images: uint8 [b, C, S, S] and float32 [b, 6] to float32 [b, C, crop, crop].

        In pieces that stay in a CPU's cache. A piece goes without what is off for all of its images where that changes no
        bit of the result: noise, gamma, and rotation where the place of every pixel is exact.
        """
        room = self._room(images)
        draws = draws.to(images.device, torch.float32)
        gain, offset, angle, top, left, gamma = draws.unbind(1)
        offset, power = offset.long(), (1 / gamma)[:, None, None, None]
        # u < 1 may round up to 1 in float32, hence the clamp
        top, left = ((share * (room + 1)).floor().clamp_(max=room) for share in (top, left))
        places = _places(angle, top, left, images.shape[-1], self.crop)
        out = torch.empty((*images.shape[:2], self.crop, self.crop), device=images.device)
        for rows, (noisy, turned, bent) in self._pieces(images, draws):
            x = _blend_noise(images[rows], gain[rows], offset[rows]) if noisy else images[rows] * LEVEL
            x = _sampled(x, *(p[rows] for p in places)) if turned else _crop(x, top[rows], left[rows], self.crop)
            x.clamp_(0, 1)
            if bent:
                x.pow_(power[rows])
            _normalise(x, mean, std, out[rows])
        return out

    def _pieces(self, images: Tensor, draws: Tensor) -> list[tuple[slice, tuple[bool, bool, bool]]]:
        """Rows of the batch, and whether any image there has noise, a turn, another gamma."""
        inexact, pieces = not _exact(images.shape[-1]), _rows(images, apart=True)
        if images.device.type == "cpu":
            on = torch.stack([draws[:, 0] != 0, (draws[:, 2] != 0) | inexact, draws[:, 5] != 1], 1)
            return [(rows, tuple(on[rows].any(0).tolist())) for rows in pieces]
        some = self.probability > 0  # to look at the draws would wait for the device
        possible = some and self.noise > 0, inexact or (some and self.rotate > 0), some and self.gamma != (1, 1)
        return [(rows, possible) for rows in pieces]

    @torch.no_grad()
    def evaluate(self, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Centre crops, normalised: uint8 [b, C, S, S] to float32 [b, C, crop, crop]."""
        start = self._room(images) // 2
        middle = images[..., start : start + self.crop, start : start + self.crop]
        out = torch.empty(middle.shape, device=images.device)
        for rows in _rows(images):
            _normalise(middle[rows] / 255, mean, std, out[rows])
        return out

    def _room(self, images: Tensor) -> int:
        height, width = images.shape[-2:]
        if height != width or height < self.crop:
            raise InputError(
                f"Augment.crop is {self.crop}, but the images are {height} x {width} pixels: they must be square and at "
                "least as large as the crop; lower augment.crop or prepare the dataset at a larger size."
            )
        return height - self.crop


def _rows(images: Tensor, *, apart: bool = False) -> list[slice]:
    """The batch in pieces that stay in a CPU's caches; on a GPU all of it.

    ``apart``: for one thread, large images each by itself, so that it goes without what it has not. Several threads get
    larger pieces, which cost less waiting for each other, and whole images each.
    """
    pixels, threads, size = max(1, images.shape[1:].numel()), torch.get_num_threads(), max(1, len(images))
    if images.device.type == "cpu" and threads > 1:
        size = threads * max(1, 4 * PIECE // pixels)
    elif images.device.type == "cpu":
        size = 1 if apart and 4 * pixels > PIECE else max(1, PIECE // pixels)
    return [slice(i, i + size) for i in range(0, len(images), size)]


@lru_cache(maxsize=4)
def _noise_bank(length: int, device: torch.device) -> Tensor:
    """N(0, 1) samples, made by numpy so that every device has the same: float32 [NOISE_OFFSETS + length]."""
    rng = np.random.default_rng(stable_seed("augment noise bank"))
    return torch.from_numpy(rng.standard_normal(NOISE_OFFSETS + length, dtype=np.float32)).to(device)


def _blend_noise(images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """(1 - g) image + g noise, in 0 .. 1; the noise of an image is stretched from its least and greatest value to 0 .. 1.

    The blend is worked out as a x + s n + t with one a, s, t per image: three passes over the pixels.
    """
    length = images[0].numel()
    bank = _noise_bank(length, images.device)
    if len(images) == 1 and images.device.type == "cpu":  # a window of its own needs no copy
        noise = bank[int(offset) :][None, :length]
    else:
        noise = bank.unfold(0, length, 1)[offset]  # [b, C*S*S], a window per image
    low, high = noise.aminmax(dim=1, keepdim=True)
    gain = gain[:, None]
    scale = gain / (high - low).clamp_(min=1e-12)
    x = images.flatten(1) * ((1 - gain) / 255)
    return x.addcmul_(scale, noise).sub_(scale * low).view(images.shape)


def _places(angle: Tensor, top: Tensor, left: Tensor, size: int, crop: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of a crop of the rotated image are in the image: a row and a column whose sum they are.

    Rotated by ``angle`` degrees (counter-clockwise) about the image's centre. A pixel of the crop has a place (u, v) in the
    rotated image, seen from its centre; turned back, it is the place in the original. x + iy, in halves of an image, as
    ``grid_sample`` has them: complex [b, 1, crop] and [b, crop, 1].
    """
    step = torch.arange(crop, device=angle.device, dtype=torch.float32) - (size - 1) / 2
    u, v = (left[:, None] + step)[:, None, :], (top[:, None] + step)[:, :, None]
    turn = torch.deg2rad(angle)[:, None, None]
    cos, sin = torch.cos(turn) * (2 / size), torch.sin(turn) * (2 / size)
    return torch.complex(cos * u, sin * u), torch.complex(-(sin * v), cos * v)


def _sampled(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Bilinear, black outside: rotation and crop in one resampling, [b, C, S, S] to [b, C, crop, crop]."""
    return F.grid_sample(x, torch.view_as_real(row + column), padding_mode="zeros", align_corners=False)


def _crop(x: Tensor, top: Tensor, left: Tensor, crop: int) -> Tensor:
    """[b, C, S, S] to [b, C, crop, crop], each image from its own place; a copy."""
    every = torch.arange(len(x), device=x.device)
    return x.unfold(2, crop, 1).unfold(3, crop, 1)[every, :, top.long(), left.long()]


@lru_cache(maxsize=16)
def _exact(size: int) -> bool:
    """Whether a rotation by 0 degrees finds every pixel at its very place, in float32: where size is a power of 2."""
    place = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) * (1 - 0 * torch.ones(())) * (2 / size)
    return bool((((place + 1) * (size / 2) - 0.5) == torch.arange(size)).all())


def _normalise(x: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor) -> Tensor:
    """(x - mean) / std, per channel, into ``out``: float32 [b, C, H, W], x in 0 .. 1."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), x.device)
    return torch.mul(x, scale, out=out).sub_(shift)


@lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """1 / std and mean / std, float32 [C, 1, 1]. Kept, because a copy to a GPU would wait for it in every step."""
    scale = torch.tensor([1 / s for s in std], dtype=torch.float32)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
    return scale[:, None, None].to(device), shift[:, None, None].to(device)
