"""Does a margin that tunes itself match the best fixed margin that a search can find? The whole study, small: minutes on 2 cores.

Two phantom datasets, three arms, equal budgets. `smallest` is the same in every part and ends in about a minute.
"""

import dataclasses

from marginlab.augment import Augment
from marginlab.data.phantom import Cxr14Phantom, OaiPhantom
from marginlab.losses import AdaTriplet, Triplet
from marginlab.margins import AutoMargin, FixedMargin
from marginlab.networks import SmallNetwork
from marginlab.space import choice, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training

small = Training(network=SmallNetwork(), augment=Augment(crop=64), lr=2e-3)
automargin = dataclasses.replace(small, loss=AdaTriplet(), margin=AutoMargin())
fixed = dataclasses.replace(small, loss=AdaTriplet(), margin=FixedMargin(epsilon=0.25, beta=0.0))
triplet = dataclasses.replace(small, loss=Triplet(), margin=FixedMargin(epsilon=0.25, beta=None))

study = Study(
    name="automargin-demo",
    question="Does a margin that tunes itself match the best fixed margin that a search can find?",
    datasets=[
        Dataset("oai", phantom=OaiPhantom(180), size=70),
        Dataset("cxr14", phantom=Cxr14Phantom(200), size=70),
    ],
    arms=[
        Arm(
            "adatriplet/automargin",
            automargin,
            space={
                "margin.k_delta": choice([1.0, 2.0, 4.0]),
                "margin.k_an": choice([1.0, 2.0, 4.0]),
                "loss.lam": uniform(0.2, 2),
            },
        ),
        Arm(
            "adatriplet/fixed",
            fixed,
            space={
                "margin.epsilon": uniform(0.05, 0.6),
                "margin.beta": uniform(-0.2, 0.6),
                "loss.lam": uniform(0.2, 2),
            },
        ),
        Arm("triplet/fixed", triplet, space={"margin.epsilon": uniform(0.05, 0.6)}),
    ],
    search=Search(epochs_budget=32, max_epochs=4, startup_trials=4, pruner_startup_trials=3),
    confirmation=Confirmation(seeds=3, folds=1, epochs=6, resources=Resources(workers=2)),
    comparison=Comparison(primary="test/map", contrast=("adatriplet/automargin", "adatriplet/fixed"), margin=0.01),
)
phantom = study
smallest = dataclasses.replace(
    study,
    name="automargin-smallest",
    datasets=[Dataset("oai", phantom=OaiPhantom(subjects=60), size=70)],
    arms=study.arms[:2],
    search=Search(epochs_budget=4, max_epochs=2, startup_trials=1, pruner_startup_trials=1),
    confirmation=Confirmation(seeds=2, folds=1, epochs=2, resources=Resources(workers=2)),
)
