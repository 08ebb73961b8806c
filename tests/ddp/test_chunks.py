"""Two ranks, each with its share of the batch in chunks, where batch normalisation is inside the network."""

from __future__ import annotations

import chunk_cases
import pytest
from ranks import Ranks


def test_synchronised_normalisation_is_that_of_one_process(ranks: Ranks) -> None:
    one = chunk_cases.steps(None, shared=True)
    for got in ranks.run(chunk_cases.synchronised, 3):  # of each rank's 4 images
        assert got == pytest.approx(one, rel=1e-10, abs=1e-10)


def test_without_it_each_rank_normalises_its_share_as_in_one_piece(ranks: Ranks) -> None:
    plain, chunked = ranks.run(chunk_cases.apart, None), ranks.run(chunk_cases.apart, 3)
    assert chunked[0] == pytest.approx(plain[0], rel=1e-10, abs=1e-10) and chunked[0] == chunked[1]
    assert plain[0] != pytest.approx(chunk_cases.steps(None, shared=False), rel=1e-3)
