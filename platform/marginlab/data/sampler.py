"""Batches as a pure function: P identities with K images each, the same on any machine and any number of ranks.

The scheme is that of pytorch-metric-learning's ``MPerClassSampler``: every batch draws its identities anew, without
replacement, so an epoch as long as the data need not show every image. There is no state to save or to restore:
a resumed run asks for the epoch that it lost and gets the batches it would have had.

Where labels are grades, of which there are few, batches are shuffled images instead, as common as each grade is.
"""

from __future__ import annotations

import numpy as np

from marginlab.values import InputError, stable_seed


def batches(
    labels: np.ndarray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    per_identity: int | None,
    rank: int = 0,
    world: int = 1,
) -> np.ndarray:
    """Positions into ``labels`` for every step of one epoch: int64 [steps, batch_size // world].

    A batch is ``batch_size / per_identity`` distinct identities with ``per_identity`` images each; images repeat only
    where an identity has fewer. ``steps`` is the number of images over ``batch_size``, rounded down, and at least 1.
    Rank ``r`` gets the ``r``-th block of whole identities: the ranks' batches, concatenated, are the global batch.

    ``per_identity=None``: every image at most once per epoch, in random order, whatever its label.
    """
    labels = np.asarray(labels)
    if per_identity is None:
        return _shuffled(len(labels), seed, epoch, batch_size, rank, world)
    identities = _identities_per_batch(batch_size, per_identity, rank, world)
    order = np.argsort(labels, kind="stable")  # images of one identity lie together
    _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    if len(count) < identities:
        raise InputError(
            f"A batch of {batch_size} with {per_identity} images per identity needs {identities} identities, but the "
            f"training data has {len(count)}: lower batch_size or raise per_identity."
        )
    steps = steps_per_epoch(len(labels), batch_size)
    rng = np.random.default_rng(stable_seed("batches", seed, epoch))
    who = _distinct(rng, np.full(steps, len(count)), identities)  # [steps, P]
    # Floyd's draw is a uniform set in an order that is not; ranks take blocks of it, so the order has to be random too.
    who = np.take_along_axis(who, np.argsort(rng.random(who.shape), axis=1), axis=1)
    which = _distinct(rng, count[who], per_identity)  # [steps, P, K]
    position = order[first[who][..., None] + which].reshape(steps, batch_size)
    own = batch_size // world
    return np.ascontiguousarray(position[:, rank * own : (rank + 1) * own], dtype=np.int64)


def _shuffled(images: int, seed: int, epoch: int, batch_size: int, rank: int, world: int) -> np.ndarray:
    own = _identities_per_batch(batch_size, 1, rank, world) // world
    if images < batch_size:
        raise InputError(f"A batch of {batch_size} images needs as many, but there are {images}: lower batch_size.")
    order = np.argsort(np.random.default_rng(stable_seed("batches", seed, epoch)).random(images), kind="stable")
    plan = order[: steps_per_epoch(images, batch_size) * batch_size].reshape(-1, batch_size)
    return np.ascontiguousarray(plan[:, rank * own : (rank + 1) * own], dtype=np.int64)


def steps_per_epoch(images: int, batch_size: int) -> int:
    return max(1, images // batch_size)


def _identities_per_batch(batch_size: int, per_identity: int, rank: int, world: int) -> int:
    if per_identity < 1 or batch_size < 1 or batch_size % per_identity:
        raise InputError(
            f"batch_size {batch_size} is not a multiple of per_identity {per_identity}: a batch holds whole identities."
        )
    identities = batch_size // per_identity
    if world < 1 or identities % world:
        raise InputError(
            f"The {identities} identities of a batch (batch_size {batch_size} / per_identity {per_identity}) cannot be "
            f"dealt evenly to {world} workers: choose a number of workers that divides {identities}."
        )
    if not 0 <= rank < world:
        raise InputError(f"Rank {rank} does not exist among {world} workers: ranks run from 0 to {world - 1}.")
    return identities


def _distinct(rng: np.random.Generator, n: np.ndarray, count: int) -> np.ndarray:
    """``count`` different integers below each of ``n``, or independent ones where ``n < count``: int64 [*n.shape, count].

    Robert Floyd's algorithm (Bentley, CACM 30(9), 1987), on all draws at once: O(count^2) per draw whatever ``n``,
    where shuffling 30,000 identities for each of 875 batches would take seconds. Only ``rng.random`` is used: numpy
    promises its stream across versions.
    """
    out = np.empty((*n.shape, count), dtype=np.int64)
    for i in range(count):
        last = n - count + i  # negative where n < count: there the draw is with replacement
        top = np.where(n < count, n - 1, last)
        pick = (rng.random(n.shape) * (top + 1)).astype(np.int64)
        taken = (out[..., :i] == pick[..., None]).any(axis=-1) & (n >= count)
        out[..., i] = np.where(taken, last, pick)
    return out
