"""docs/methods.md says what the code says."""

from __future__ import annotations

from pathlib import Path

import marginlab.losses as losses
import marginlab.networks as networks
from marginlab.margins import POLICIES, matrix

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text()


def test_the_matrix_is_the_one_that_is_computed() -> None:
    own = [losses.Triplet(), losses.AdaTriplet(), losses.AdaTriplet(pull=1.0), losses.WAT(), losses.SCT()]
    assert matrix([*own, losses.FineTriplet()]) in PAGE


def test_every_method_has_a_row() -> None:
    named = [n for n in losses.__all__ if isinstance(getattr(losses, n), type) and hasattr(getattr(losses, n), "slots")]
    assert len(named) > 25
    named += [type(p).__name__ for p in POLICIES]
    named += ["SmallNetwork", "ResNet18", "DenseNet121", "GemPooling", "MirrorAttention", "SelfAttention"]
    assert [n for n in named if f"| `{n}" not in PAGE] == []
    assert all(hasattr(networks, n) for n in named[-6:])
