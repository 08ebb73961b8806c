"""What comes out where what goes in is wrong: a sentence, or a documented value, for every own loss alike."""

from __future__ import annotations

from typing import Any

import brute_force
import pytest
import torch
from every import LOSSES

from marginlab.losses import Pairs
from marginlab.margins import Margin

MARGIN = Margin.of(0.4, 0.1, beta_p=0.9)
WITHOUT_EASY = [loss for loss in LOSSES if getattr(loss, "mining", "") != "easy"]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_hidden(loss: Any, bad: float) -> None:
    for image in (0, 5):
        x, y = brute_force.batch("P x K", dim=6)
        with torch.no_grad():
            x[image, 1] = bad
        assert loss(Pairs.of(x, y), MARGIN).total.isnan()


@pytest.mark.parametrize("loss", WITHOUT_EASY, ids=str)
@pytest.mark.parametrize("name", ["one class, no negative", "no positive", "one image"])
def test_without_negatives_or_positives_there_is_nothing_to_learn(loss: Any, name: str) -> None:
    x, y = brute_force.batch(name, dim=6)
    terms = loss(Pairs.of(x, y), MARGIN)
    terms.total.backward()
    assert x.grad is not None
    if getattr(loss, "pull", 0) and name == "one class, no negative":
        assert terms.total == loss.pull * terms.parts["positive"] > 0  # a positive pair needs no negative
    else:
        assert terms.total == 0
        assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_largest_half_precision_embeddings_do_not_overflow(loss: Any) -> None:
    x, y = brute_force.batch("P x K", dim=6)
    x = (x / x.abs().max()).detach()
    huge, small = (x * 65504).half(), Pairs.of(x, y)
    want, got = loss(small, MARGIN).total, loss(Pairs.of(huge, y), MARGIN).total
    assert abs(want - got) < 0.02  # float16 has three digits, and a triplet may change sides
    assert loss(Pairs.of(huge * 2, y), MARGIN).total.isnan()  # overflowed before it came here: inf


def test_an_embedding_of_no_length_or_of_too_much_is_similar_to_nothing() -> None:
    x, y = torch.randn(4, 6), torch.tensor([0, 0, 1, 1])
    x[1], x[2] = 0, 1e30
    sim = Pairs.of(x, y).sim
    assert (sim[1:3] == 0).all() and (sim[:, 1:3] == 0).all()


def test_labels_of_another_length_are_refused() -> None:
    x = torch.randn(4, 6)
    for y in (torch.zeros(3, dtype=torch.int64), torch.zeros(4, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"got embeddings \[4, 6\] and labels \[.*\]: pass embeddings \[b, D\]"):
            Pairs.of(x, y)
    with pytest.raises(ValueError, match=r"got embeddings \[6\] and labels \[6\]"):
        Pairs.of(x[0], torch.arange(6))


def test_labels_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="got labels of torch.float32: pass whole numbers, one per identity"):
        Pairs.of(torch.randn(4, 6), torch.zeros(4))
