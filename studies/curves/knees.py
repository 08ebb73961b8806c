"""How do AdaTriplet's networks learn all over the space of its margins? A grid, trained three times, for others to replay.

What lies in studies/curves/knees was made with it (2 CPU cores, about five minutes):

    marginlab run studies/curves/knees.py
    marginlab export knees-recorded --out studies/curves/knees
"""

import itertools

from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.losses import AdaTriplet
from marginlab.margins import AutoMargin, FixedMargin
from marginlab.space import choice, uniform
from marginlab.study import Arm, Confirmation, Dataset, Search, Study
from marginlab.training import Training

EPOCHS = 6
lam = uniform(0.2, 2)
spaces = {
    "adatriplet/automargin": {
        "margin.k_delta": choice([1.0, 2.0, 4.0]),
        "margin.k_an": choice([1.0, 2.0, 4.0]),
        "loss.lam": lam,
    },
    "adatriplet/fixed": {"margin.epsilon": uniform(0.05, 0.6), "margin.beta": uniform(-0.2, 0.6), "loss.lam": lam},
}
margins = {"adatriplet/automargin": AutoMargin(), "adatriplet/fixed": FixedMargin()}
grids = {
    "adatriplet/automargin": ((1.0, 2.0, 4.0), (1.0, 2.0, 4.0), (0.2, 2.0)),
    "adatriplet/fixed": ((0.05, 0.2, 0.4, 0.6), (-0.2, 0.2, 0.6), (0.2, 2.0)),
}


def arm(name: str) -> Arm:
    cells = tuple(dict(zip(spaces[name], cell, strict=True)) for cell in itertools.product(*grids[name]))
    return Arm(name, Training(AdaTriplet(), margins[name], augment=Augment(crop=64), lr=2e-3), spaces[name], cells)


study = phantom = Study(
    name="knees-recorded",
    question="How do AdaTriplet's networks learn all over the space of its margins?",
    datasets=[Dataset("oai", phantom=OaiPhantom(90), size=70)],
    arms=[arm(name) for name in spaces],
    # As many trials as the larger grid has cells and the default, none pruned; the smaller one's rest are random ones.
    search=Search(
        epochs_budget=25 * EPOCHS, max_epochs=EPOCHS, replicates=3, startup_trials=25, pruner_startup_trials=25
    ),
    confirmation=Confirmation(seeds=1, folds=1, epochs=EPOCHS),
)
