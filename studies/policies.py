"""Does it matter how the margin is set? Losses crossed with margin policies, the same budget for each; on phantoms.

Triplet and AdaTriplet with all policies that fit both; about ten minutes on 2 cores. `smallest` has four arms.
"""

import dataclasses

from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.losses import AdaTriplet, Triplet
from marginlab.margins import (
    AutoMargin,
    CosineMargin,
    EasyShareMargin,
    FixedMargin,
    MovingAverage,
    PerBatch,
    QuantileMargin,
    StepMargin,
)
from marginlab.space import choice, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training

k = choice([1.0, 2.0, 4.0])
losses = {"triplet": Triplet(), "adatriplet": AdaTriplet()}
policies = {
    "fixed": (FixedMargin(), {"margin.epsilon": uniform(0.05, 0.6)}),
    "automargin": (AutoMargin(), {"margin.k_delta": k}),
    "quantile": (QuantileMargin(), {"margin.gap": uniform(0.1, 0.5)}),
    "per-batch": (PerBatch(AutoMargin()), {"margin.policy.k_delta": k}),
    "moving-average": (MovingAverage(AutoMargin()), {"margin.policy.k_delta": k}),
    "cosine": (CosineMargin(epochs=4), {"margin.epsilon_end": uniform(0.05, 0.6)}),
    "step": (StepMargin(at=(1, 3)), {"margin.epsilon_step": uniform(0.0, 0.2)}),
    "easy-share": (EasyShareMargin(), {"margin.target": uniform(0.2, 0.8)}),
}

study = Study(
    name="policies",
    question="Does it matter how the margin is set?",
    datasets=[Dataset("oai", phantom=OaiPhantom(), size=70)],
    arms=[
        Arm(f"{loss}/{policy}", Training(losses[loss], margin, augment=Augment(crop=64), lr=2e-3), space)
        for loss in losses
        for policy, (margin, space) in policies.items()
    ],
    search=Search(epochs_budget=16, max_epochs=4, startup_trials=3, pruner_startup_trials=2),
    confirmation=Confirmation(seeds=3, folds=1, epochs=4, resources=Resources(workers=2)),
    comparison=Comparison(contrast=("adatriplet/automargin", "adatriplet/fixed")),
)
phantom = study
smallest = dataclasses.replace(study, name="policies-smallest", arms=(*study.arms[:2], *study.arms[8:10]))
