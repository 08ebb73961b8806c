"""Retrieval: exact rankings of a gallery, and the figures that derive from them. Torch and numpy alone.

:class:`Ranking` is the one object; ``ranking`` makes it from embeddings in memory (``blocks``) or from a gallery that comes
in parts (``streaming``). ``protocol`` has the published protocols.
"""

from marginlab.retrieval.chance import by_chance
from marginlab.retrieval.embeddings import Embeddings, concatenate, unit
from marginlab.retrieval.protocol import protocol_means, protocol_queries, protocol_scores, validation_scores
from marginlab.retrieval.ranking import AT_K, METRICS, Figures, Ranking, Worst

__all__ = [
    "AT_K",
    "METRICS",
    "Embeddings",
    "Figures",
    "Ranking",
    "Worst",
    "by_chance",
    "concatenate",
    "protocol_means",
    "protocol_queries",
    "protocol_scores",
    "unit",
    "validation_scores",
]
