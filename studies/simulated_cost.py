"""How much do pruning and AutoMargin save at 10, 100 and 1,000 trials? Recorded learning curves are replayed, nothing is trained.

The curves are of phantoms: studies/curves/knees.py says how they were made, and docs/simulated-trials.md what came out and what
it does not show. `unpruned` is the same without pruning; `smallest` has ten trials.
"""

import dataclasses

from marginlab.augment import Augment
from marginlab.losses import AdaTriplet
from marginlab.margins import AutoMargin, FixedMargin
from marginlab.space import choice, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training

EPOCHS = 6
small = Training(AdaTriplet(), AutoMargin(), augment=Augment(crop=64), lr=2e-3)
lam = {"loss.lam": uniform(0.2, 2)}
k = choice([1.0, 2.0, 4.0])


def searched(trials: int, pruned: bool = True) -> Search:
    return Search(
        epochs_budget=trials * EPOCHS,
        max_epochs=EPOCHS,
        replicates=3,
        pruner_startup_trials=5 if pruned else trials,
    )


study = phantom = Study(
    name="simulated-cost",
    question="How much do pruning and AutoMargin save at 10, 100 and 1,000 trials?",
    datasets=[Dataset("oai", curves="studies/curves/knees")],
    arms=[
        Arm("adatriplet/automargin", small, {"margin.k_delta": k, "margin.k_an": k, **lam}),
        Arm(
            "adatriplet/fixed",
            dataclasses.replace(small, margin=FixedMargin()),
            {"margin.epsilon": uniform(0.05, 0.6), "margin.beta": uniform(-0.2, 0.6), **lam},
        ),
    ],
    search=searched(1000),
    confirmation=Confirmation(seeds=5, folds=1, incumbents=5),
    comparison=Comparison(contrast=("adatriplet/automargin", "adatriplet/fixed"), margin=0.01),
)
unpruned = dataclasses.replace(study, name="simulated-cost-unpruned", search=searched(1000, pruned=False))
smallest = dataclasses.replace(study, name="simulated-cost-smallest", search=searched(10))
