from __future__ import annotations

import numpy as np
import pytest

from marginlab.retrieval.matches import Matches
from marginlab.values import InputError


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("visits", [0, 1, 3])
def test_matches_and_what_is_left_out_by_looking_at_every_pair(seed, visits):
    rng = np.random.default_rng(seed)
    ql, gl = rng.choice([-4, 1, 7, 9], 9), rng.choice([-4, 1, 7], 14)
    qv, gv = (rng.integers(5, 5 + visits, 9), rng.integers(5, 5 + visits, 14)) if visits else (None, None)
    m = Matches.of(ql, gl, qv, gv)
    out = np.zeros((9, 14), bool) if qv is None else (ql[:, None] == gl) & (qv[:, None] == gv)
    positive = (ql[:, None] == gl) & ~out
    own = np.array([3, 0, 8])
    for found, expected in ((m.positives(own), positive[own]), (m.left_out(own), out[own])):
        assert sorted(zip(*found, strict=True)) == sorted(zip(*np.nonzero(expected), strict=True))
        assert np.all(np.diff(found[0]) >= 0)
    assert m.count.tolist() == positive.sum(1).tolist()
    assert m.admissible.tolist() == (14 - out.sum(1)).tolist()


def test_labels_may_be_text():
    m = Matches.of(np.array(["b"]), np.array(["a", "b", "b"]), None, None)
    assert m.positives(np.array([0]))[1].tolist() == [1, 2]


def test_visits_of_one_side_alone_are_refused():
    with pytest.raises(InputError, match="visits of both"):
        Matches.of(np.zeros(2), np.zeros(2), np.zeros(2), None)
