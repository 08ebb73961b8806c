"""Cross-batch memory against the library's, batch after batch, past the point where the memory starts anew."""

from __future__ import annotations

from typing import Any

import brute_force
import pytest
import torch
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.miners import MultiSimilarityMiner

from marginlab.losses import (
    AdaTriplet,
    Circle,
    Contrastive,
    CrossBatchMemory,
    GeneralizedLiftedStructure,
    LiftedStructure,
    MultiSimilarity,
    NTXent,
    Pairs,
    SupCon,
    TupletMargin,
    build_seeded,
)
from marginlab.margins import Margin, NoMargin
from marginlab.training import Training
from marginlab.values import InputError

CASES: list[tuple[Any, Any, Any]] = [
    (Contrastive(), library.ContrastiveLoss(), None),
    (MultiSimilarity(), library.MultiSimilarityLoss(), MultiSimilarityMiner(0.1)),
    (MultiSimilarity(epsilon=None), library.MultiSimilarityLoss(), None),
    (Circle(), library.CircleLoss(), None),
    (SupCon(), library.SupConLoss(), None),
    (NTXent(), library.NTXentLoss(), None),
    (LiftedStructure(), library.LiftedStructureLoss(), None),
    (GeneralizedLiftedStructure(), library.GeneralizedLiftedStructureLoss(), None),
]


def batches(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [brute_force.batch("P x K", seed) for seed in range(count)]  # of 12; a memory of 30 is full after the third


@pytest.mark.parametrize(("loss", "direct", "miner"), CASES, ids=lambda c: type(c).__name__)
def test_value_and_gradient_are_those_of_the_library(loss: Any, direct: Any, miner: Any) -> None:
    memory = library.CrossBatchMemory(direct, 5, memory_size=30, miner=miner)
    built = build_seeded(CrossBatchMemory(loss, 30), 4, torch.zeros(1, 5, dtype=torch.float64), 0)
    for x, y in batches():
        unit = torch.nn.functional.normalize(x, dim=1)  # what the network gives, and what is remembered
        got, want = built(Pairs.of(x, y), Margin.of()).total, memory(unit, y)
        assert abs(got - want) < 1e-9
        torch.testing.assert_close(brute_force.gradient(got, x), brute_force.gradient(want, x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
def test_a_memory_that_is_saved_and_restored_goes_on_as_if_nothing_had_been(after: int) -> None:
    value, example = CrossBatchMemory(MultiSimilarity(), 30), torch.zeros(1, 5, dtype=torch.float64)
    whole, first, rest = (build_seeded(value, 4, example, seed) for seed in (0, 0, 1))
    want = [whole(Pairs.of(x, y), Margin.of()).total for x, y in batches()]
    got = [first(Pairs.of(x, y), Margin.of()).total for x, y in batches()[:after]]
    state = {k: v.clone() for k, v in first.state_dict().items()}
    assert all(isinstance(v, torch.Tensor) for v in state.values())
    rest.load_state_dict(state)
    got += [rest(Pairs.of(x, y), Margin.of()).total for x, y in batches()[after:]]
    assert got == want
    assert all(torch.equal(v, rest.state_dict()[k]) for k, v in whole.state_dict().items())


def test_what_does_not_go_with_a_memory_is_refused() -> None:
    for loss in (AdaTriplet(), TupletMargin(), CrossBatchMemory()):
        with pytest.raises(
            InputError, match=r"CrossBatchMemory.loss cannot be .*: the library has a memory for Contrastive,"
        ):
            CrossBatchMemory(loss)
    with pytest.raises(InputError, match=r"CrossBatchMemory.size is 100, less than a batch \(128\): enlarge it."):
        Training(loss=CrossBatchMemory(size=100), margin=NoMargin())
