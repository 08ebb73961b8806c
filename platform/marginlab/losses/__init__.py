"""Losses: frozen values that turn the similarities of a batch and a margin into one number to minimise.

A loss declares ``slots``, the margin slots it reads (``marginlab.margins.SLOTS``), and is called as
``loss(pairs, margin) -> LossTerms``. Similarity is the cosine; larger is closer. A loss that carries something from batch to
batch is built first (:mod:`marginlab.losses.stateful`).
"""

from __future__ import annotations

from marginlab.losses.adatriplet import AdaTriplet
from marginlab.losses.fine_triplet import FineTriplet
from marginlab.losses.memory import CrossBatchMemory
from marginlab.losses.pairs import LossTerms, Pairs, Positives
from marginlab.losses.pairwise import (
    PNP,
    Circle,
    Contrastive,
    FastAP,
    GeneralizedLiftedStructure,
    LiftedStructure,
    MultiSimilarity,
    NPairs,
    NTXent,
    SmoothAP,
    SupCon,
    ThresholdConsistent,
    TupletMargin,
)
from marginlab.losses.proxies import (
    ArcFace,
    CosFace,
    NormalizedSoftmax,
    ProxyAnchor,
    ProxyNCA,
    SoftTriple,
    SubCenterArcFace,
)
from marginlab.losses.sct import SCT
from marginlab.losses.stateful import build_seeded
from marginlab.losses.triplet import Triplet
from marginlab.losses.wat import WAT

__all__ = [
    "PNP",
    "SCT",
    "WAT",
    "AdaTriplet",
    "ArcFace",
    "Circle",
    "Contrastive",
    "CosFace",
    "CrossBatchMemory",
    "FastAP",
    "FineTriplet",
    "GeneralizedLiftedStructure",
    "LiftedStructure",
    "LossTerms",
    "MultiSimilarity",
    "NPairs",
    "NTXent",
    "NormalizedSoftmax",
    "Pairs",
    "Positives",
    "ProxyAnchor",
    "ProxyNCA",
    "SmoothAP",
    "SoftTriple",
    "SubCenterArcFace",
    "SupCon",
    "ThresholdConsistent",
    "Triplet",
    "TupletMargin",
    "build_seeded",
]
