"""Every own loss with every option, for tests of what they have in common."""

from __future__ import annotations

from typing import Any

from marginlab.losses import SCT, WAT, AdaTriplet, FineTriplet, Triplet

KINDS = ("semihard", "all", "hard", "easy")
LOSSES: list[Any] = [
    *(Triplet(k) for k in KINDS),
    *(AdaTriplet(mining=k) for k in KINDS),
    *(AdaTriplet(mining=k, smooth=True) for k in KINDS),
    AdaTriplet(pair="lse"),
    AdaTriplet(pull=0.7),
    AdaTriplet(pair="lse", pull=0.7),
    WAT(),
    WAT(k=0),
    SCT(),
    SCT(mining="all"),
    FineTriplet(),
    FineTriplet(degrees=False, scale=8),
]
