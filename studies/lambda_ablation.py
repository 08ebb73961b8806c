"""What does AdaTriplet's term on negative pairs add, and how much does its weight lambda matter? At 0 the loss is Triplet.

An arm per weight, and nothing is searched (one trial of one epoch is the least that a search may be): each arm is trained on
all folds and seeds as published, with AutoMargin at its published divisors. The report's table is the ablation.

Trained as in automargin_vs_fixed.py, which says where data and ImageNet weights are looked for. `phantom` needs neither.
"""

import dataclasses

from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.losses import AdaTriplet
from marginlab.margins import AutoMargin
from marginlab.networks import ResNet18
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training

WEIGHTS = "~/.cache/torch/hub/checkpoints/resnet18-f37072fd.pth"
SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
LAMBDAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def arms(training: Training) -> list[Arm]:
    weighted = {lam: dataclasses.replace(training, loss=AdaTriplet(lam), margin=AutoMargin()) for lam in LAMBDAS}
    return [Arm(f"lambda-{lam:g}", training) for lam, training in weighted.items()]


study = Study(
    name="lambda-ablation",
    question="What does AdaTriplet's term on negative pairs add to Triplet, and how much does its weight matter?",
    datasets=[Dataset("oai", root="data/oai"), Dataset("cxr14", root="data/cxr14")],
    arms=arms(Training(network=ResNet18(weights=WEIGHTS, sha256=SHA256))),
    search=Search(epochs_budget=1, max_epochs=1),
    confirmation=Confirmation(seeds=5, folds=5, epochs=100),
    comparison=Comparison(contrast=("lambda-1", "lambda-0"), margin=0.01),
)
phantom = dataclasses.replace(
    study,
    name="lambda-ablation-phantom",
    datasets=[Dataset("oai", phantom=OaiPhantom(60), size=70)],
    arms=arms(Training(augment=Augment(crop=64), lr=2e-3)),
    confirmation=Confirmation(seeds=3, folds=1, epochs=4),
)
