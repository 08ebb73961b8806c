from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginlab.data.sampler import batches
from marginlab.values import InputError


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=30),
    per_identity=st.integers(1, 5),
    world=st.integers(1, 3),
    per_rank=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 200),
)
def test_every_batch_is_p_identities_with_k_images_each(counts, per_identity, world, per_rank, seed, epoch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 3 - 5, counts))
    identities = world * per_rank
    batch_size = identities * per_identity
    how = {"seed": seed, "epoch": epoch, "batch_size": batch_size, "per_identity": per_identity}
    if identities > len(counts):
        with pytest.raises(InputError, match="lower batch_size"):
            batches(labels, **how)
        return
    whole = batches(labels, **how)
    assert whole.dtype == np.int64
    assert whole.shape == (max(1, len(labels) // batch_size), batch_size)
    size = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    for batch in whole:
        groups = batch.reshape(identities, per_identity)
        who = labels[groups]
        assert (who == who[:, :1]).all()
        assert len(set(who[:, 0])) == identities
        for group, label in zip(groups, who[:, 0], strict=True):
            if size[label] >= per_identity:
                assert len(set(group)) == per_identity
    ranks = [batches(labels, **how, rank=r, world=world) for r in range(world)]
    np.testing.assert_array_equal(np.concatenate(ranks, axis=1), whole)


def test_same_arguments_same_batches_other_epoch_or_seed_others():
    labels = np.repeat(np.arange(40), 5)
    how = {"batch_size": 32, "per_identity": 4}
    first = batches(labels, seed=1, epoch=0, **how)
    np.testing.assert_array_equal(first, batches(labels, seed=1, epoch=0, **how))
    assert (first != batches(labels, seed=1, epoch=1, **how)).any()
    assert (first != batches(labels, seed=2, epoch=0, **how)).any()


def test_known_batches():
    """Pinned, so that a change of the stream, which would make recorded runs impossible to replay, is noticed."""
    got = batches(np.repeat(np.arange(6), 3), seed=7, epoch=3, batch_size=6, per_identity=2)
    assert got.tolist() == [[9, 10, 0, 1, 13, 12], [6, 8, 3, 5, 10, 9], [6, 8, 12, 13, 4, 3]]


def test_identities_images_and_ranks_are_drawn_evenly():
    labels = np.repeat(np.arange(10), 6)
    drawn = np.concatenate(
        [batches(labels, seed=0, epoch=e, batch_size=12, per_identity=3, rank=0, world=2) for e in range(800)]
    )  # 4,000 steps; rank 0 gets 2 of 10 identities, 3 of 6 images of each
    share = np.bincount(drawn.ravel(), minlength=60) / len(drawn)
    # P(an image is in a batch of the rank) = 2/10 * 3/6 = 0.1; its standard error is 0.0047
    assert np.abs(share - 0.1).max() < 5 * 0.0047


def test_an_epoch_of_the_largest_dataset_takes_well_under_a_second():
    labels = np.random.default_rng(0).integers(0, 30_000, 112_120)
    labels[:30_000] = np.arange(30_000)
    start = time.perf_counter()
    got = batches(labels, seed=0, epoch=0, batch_size=128, per_identity=4)
    assert got.shape == (875, 128)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 10}, "batch_size 10 is not a multiple of per_identity 4"),
        ({"world": 3}, "cannot be dealt evenly to 3 workers"),
        ({"batch_size": 48}, "needs 12 identities, but the training data has 10"),
        ({"rank": 2, "world": 2}, "Rank 2 does not exist among 2 workers"),
        ({"per_identity": 0}, "not a multiple"),
    ],
)
def test_refusals(change, sentence):
    how = {"seed": 0, "epoch": 0, "batch_size": 16, "per_identity": 4, **change}
    with pytest.raises(InputError, match=sentence):
        batches(np.repeat(np.arange(10), 4), **how)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shuffled_images_whatever_their_label(world):
    labels = np.array([0] * 45 + [1] * 4 + [2])
    how = {"seed": 3, "batch_size": 8, "per_identity": None}
    whole = batches(labels, **how, epoch=1)
    assert whole.shape == (6, 8) and len(set(whole.ravel())) == 48  # each image once, but for those that fill no batch
    ranks = [batches(labels, **how, epoch=1, rank=r, world=world) for r in range(world)]
    np.testing.assert_array_equal(np.concatenate(ranks, axis=1), whole)
    assert not np.array_equal(whole, batches(labels, **how, epoch=2))
    left_out = {i for e in range(40) for i in set(range(50)) - set(batches(labels, **how, epoch=e).ravel())}
    assert len(left_out) > 30  # not always the same ones
    with pytest.raises(InputError, match="A batch of 64 images needs as many, but there are 50"):
        batches(labels, seed=0, epoch=0, batch_size=64, per_identity=None)
    with pytest.raises(InputError, match="cannot be dealt evenly to 3 workers"):
        batches(labels, **how, epoch=1, world=3)
