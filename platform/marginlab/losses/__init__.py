"""Losses: frozen values that turn the similarities of a batch and a margin into one number to minimise.

A loss declares ``slots``, the margin slots it reads (``marginlab.margins.SLOTS``), and is called as
``loss(pairs, margin) -> LossTerms``. Similarity is the cosine; larger is closer.
"""

from __future__ import annotations

from marginlab.losses.adatriplet import AdaTriplet
from marginlab.losses.pairs import LossTerms, Pairs, Positives
from marginlab.losses.triplet import Triplet

__all__ = ["AdaTriplet", "LossTerms", "Pairs", "Positives", "Triplet"]
