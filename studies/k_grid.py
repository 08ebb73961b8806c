"""How much does AutoMargin depend on its two divisors, K_delta (of the gap) and K_an (of the negatives)?

Every cell of a 4 x 4 grid is a trial, none is pruned, and each of three replicates trains the whole grid from seeds of its own;
the best cell of each replicate is then confirmed on all folds. The surface, from a notebook:

    results = marginlab.open("workspace", "k-grid")
    results.trials().group_by("dataset", "param/margin.k_delta", "param/margin.k_an").agg(pl.col("value").mean())

Trained as in automargin_vs_fixed.py, which says where data and ImageNet weights are looked for. `phantom` needs neither.
"""

import dataclasses

from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.losses import AdaTriplet
from marginlab.margins import AutoMargin
from marginlab.networks import ResNet18
from marginlab.space import choice
from marginlab.study import Arm, Confirmation, Dataset, Search, Study
from marginlab.training import Training

WEIGHTS = "~/.cache/torch/hub/checkpoints/resnet18-f37072fd.pth"
SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
K = (1.0, 2.0, 3.0, 4.0)
CELLS = len(K) ** 2


def grid(training: Training) -> list[Arm]:
    """One arm whose starts are the cells; its default, both 2, is one of them and comes first."""
    space = {"margin.k_delta": choice(K), "margin.k_an": choice(K)}
    cells = [{"margin.k_delta": d, "margin.k_an": n} for d in K for n in K if (d, n) != (2.0, 2.0)]
    arm = dataclasses.replace(training, loss=AdaTriplet(), margin=AutoMargin(k_delta=2.0, k_an=2.0))
    return [Arm("adatriplet/automargin", arm, space, start=cells)]


study = Study(
    name="k-grid",
    question="How much does AutoMargin depend on its two divisors?",
    datasets=[Dataset("oai", root="data/oai"), Dataset("cxr14", root="data/cxr14")],
    arms=grid(Training(network=ResNet18(weights=WEIGHTS, sha256=SHA256))),
    search=Search(CELLS * 50, 50, replicates=3, startup_trials=CELLS, pruner_startup_trials=CELLS),
    confirmation=Confirmation(seeds=5, folds=5, epochs=100, defaults=True),
)
phantom = dataclasses.replace(
    study,
    name="k-grid-phantom",
    datasets=[Dataset("oai", phantom=OaiPhantom(60), size=70)],
    arms=grid(Training(augment=Augment(crop=64), lr=2e-3)),
    search=Search(CELLS * 2, 2, startup_trials=CELLS, pruner_startup_trials=CELLS),
    confirmation=Confirmation(seeds=2, folds=1, epochs=2, defaults=True),
)
