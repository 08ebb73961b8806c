"""Two ranks train the network that one process trains; the only difference is the order in which float32 sums are taken."""

from __future__ import annotations

import network_cases
import numpy as np
import pytest
from ranks import Ranks


@pytest.mark.parametrize(
    ("network", "chunk"), [*((n, None) for n in network_cases.NETWORKS), ("small", 6), ("mirror", 6)]
)
def test_two_ranks_train_what_one_process_trains(ranks: Ranks, network: str, chunk: int | None) -> None:
    """In chunks too: three of each rank's 16 images, of which the last is smaller."""
    rows, weights = network_cases.trained(network)
    (got_rows, got_weights), (other_rows, _) = ranks.run(network_cases.trained, network, chunk)
    assert other_rows == []  # rank 0 alone reports
    assert len(got_rows) == len(rows) > 1
    for one, two in zip(rows, got_rows, strict=True):
        for key in (k for k in one if not k.startswith("time/")):
            assert two[key] == pytest.approx(one[key], rel=2e-3, abs=2e-4), (one["epoch"], key)
    assert got_weights.keys() == weights.keys()
    start = _initial(network)
    moved = np.concatenate([np.abs(weights[k] - w).ravel() for k, w in start.items()])
    apart = np.concatenate([np.abs(weights[k] - got_weights[k]).ravel() for k in start])
    # Adam divides a gradient by its own size: where a gradient is all rounding, a weight may move by lr either way.
    # Such weights are few; all others agree to a thousandth of what they moved.
    assert np.median(moved) > 5e-4
    assert np.quantile(apart, 0.95) < 1e-3 * np.median(moved)


def _initial(network: str) -> dict[str, np.ndarray]:
    from marginlab.networks import build_seeded

    state = build_seeded(network_cases.NETWORKS[network], 1, 1).state_dict()
    return {f"network/{k}": v.numpy() for k, v in state.items() if v.dtype.is_floating_point}


def test_all_ranks_stop_together(ranks: Ranks) -> None:
    assert ranks.run(network_cases.stopped, 1) == [2, 0]
    assert ranks.starts == 1  # nobody was left waiting


def test_all_ranks_fail_together(ranks: Ranks) -> None:
    first, second = ranks.run(network_cases.diverged)
    assert first == second and first.startswith("The loss was")
