"""Which loss finds the same knee, years later? Every loss at its published setting, then searched with the same budget; on phantoms.

18 arms: about ten minutes on 2 cores. `smallest` has four of them and ends in two minutes.
"""

import dataclasses
from typing import Any

from marginlab import losses as L
from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.margins import AutoMargin, FixedMargin, NoMargin
from marginlab.networks import MirrorAttention
from marginlab.space import choice, loguniform, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training


def arm(name: str, loss: Any, space: dict[str, Any], **others: Any) -> Arm:
    return Arm(name, Training(loss, **{"margin": NoMargin(), **others}, augment=Augment(crop=64), lr=2e-3), space)


k, epsilon = {"margin.k_delta": choice([1.0, 2.0, 4.0])}, {"margin.epsilon": uniform(0.05, 0.6)}
arms = [
    arm("adatriplet/automargin", L.AdaTriplet(), k, margin=AutoMargin()),
    arm("adatriplet/fixed", L.AdaTriplet(), epsilon, margin=FixedMargin()),
    arm("triplet", L.Triplet(), epsilon, margin=FixedMargin(beta=None)),
    arm("wat", L.WAT(), {"loss.k": uniform(0.0, 3.0)}),
    arm("sct", L.SCT(), {"loss.lam": uniform(0.2, 2.0)}),
    arm("fine-triplet/mirror", L.FineTriplet(), {"loss.scale": loguniform(0.5, 16.0)}, network=MirrorAttention()),
    arm("contrastive", L.Contrastive(), {"loss.neg_margin": uniform(0.5, 1.5)}),
    arm("lifted-structure", L.LiftedStructure(), {"loss.neg_margin": uniform(0.5, 1.5)}),
    arm("multi-similarity", L.MultiSimilarity(), {"loss.base": uniform(0.2, 0.8)}),
    arm("circle", L.Circle(), {"loss.m": uniform(0.2, 0.5)}),
    arm("supcon", L.SupCon(), {"loss.temperature": loguniform(0.03, 0.5)}),
    arm("smooth-ap", L.SmoothAP(), {"loss.temperature": loguniform(0.003, 0.1)}),
    arm("fast-ap", L.FastAP(), {"loss.bins": choice([5, 10, 20])}),
    arm("tuplet-margin", L.TupletMargin(), {"loss.margin": uniform(2.0, 12.0)}),
    arm("cross-batch-memory", L.CrossBatchMemory(), {"loss.size": choice([512, 2048, 8192])}),
    arm("arcface", L.ArcFace(), {"loss.margin": uniform(5.0, 40.0)}),
    arm("soft-triple", L.SoftTriple(), {"loss.margin": uniform(0.0, 0.1)}),
    arm("proxy-anchor", L.ProxyAnchor(), {"loss.margin": uniform(0.0, 0.3)}),
]

study = Study(
    name="losses",
    question="Which loss finds the same knee, years later?",
    datasets=[Dataset("oai", phantom=OaiPhantom(), size=70)],
    arms=arms,
    search=Search(epochs_budget=16, max_epochs=4, startup_trials=3, pruner_startup_trials=2),
    confirmation=Confirmation(seeds=3, folds=1, epochs=4, resources=Resources(workers=2)),
    comparison=Comparison(contrast=("adatriplet/automargin", "triplet")),
)
phantom = study
smallest = dataclasses.replace(study, name="losses-smallest", arms=(*arms[:3], arms[-1]))
