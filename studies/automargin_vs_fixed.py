"""Does a margin that tunes itself match the best margin that a search can find, with Triplet and with AdaTriplet?

{Triplet, AdaTriplet} x {FixedMargin, AutoMargin} on knees and chests, trained as published (Nguyen et al. 2022): ResNet-18 from
ImageNet, 280 pixels cropped to 256, batches of 32 people x 4 images, Adam at 1e-4, 100 epochs, five folds, five seeds.

It reads data/oai and data/cxr14, seen from where the command is given (links will do), and the ImageNet weights from
https://download.pytorch.org/models/resnet18-f37072fd.pth, kept where torch.hub keeps them. `phantom` needs none of it.
"""

import dataclasses
from typing import Any

from marginlab.augment import Augment
from marginlab.data.phantom import Cxr14Phantom, OaiPhantom
from marginlab.losses import AdaTriplet, Triplet
from marginlab.margins import AutoMargin, FixedMargin
from marginlab.networks import ResNet18
from marginlab.space import loguniform, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training

WEIGHTS = "~/.cache/torch/hub/checkpoints/resnet18-f37072fd.pth"
SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"

lam, epsilon, beta = {"loss.lam": uniform(0.2, 2)}, {"margin.epsilon": uniform(0.05, 0.6)}, uniform(-0.2, 0.6)
k = {"margin.k_delta": loguniform(1, 8)}
crossed: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "adatriplet/automargin": (AdaTriplet(), AutoMargin(), {**k, "margin.k_an": loguniform(1, 8), **lam}),
    "adatriplet/fixed": (AdaTriplet(), FixedMargin(), {**epsilon, "margin.beta": beta, **lam}),
    "triplet/automargin": (Triplet(), AutoMargin(), k),
    "triplet/fixed": (Triplet(), FixedMargin(beta=None), epsilon),
}


def arms(training: Training) -> list[Arm]:
    return [Arm(name, dataclasses.replace(training, loss=a, margin=b), c) for name, (a, b, c) in crossed.items()]


study = Study(
    name="automargin-vs-fixed",
    question="Does a margin that tunes itself match the best fixed margin that a search can find?",
    datasets=[Dataset("oai", root="data/oai"), Dataset("cxr14", root="data/cxr14")],
    arms=arms(Training(network=ResNet18(weights=WEIGHTS, sha256=SHA256))),
    search=Search(epochs_budget=1000, max_epochs=50, replicates=3),
    confirmation=Confirmation(seeds=5, folds=5, epochs=100, defaults=True, incumbents=1),
    comparison=Comparison(contrast=("adatriplet/automargin", "adatriplet/fixed"), margin=0.01),
)
phantom = dataclasses.replace(
    study,
    name="automargin-vs-fixed-phantom",
    datasets=[Dataset("oai", phantom=OaiPhantom(60), size=70), Dataset("cxr14", phantom=Cxr14Phantom(60), size=70)],
    arms=arms(Training(augment=Augment(crop=64), lr=2e-3)),
    search=Search(epochs_budget=8, max_epochs=2, startup_trials=2, pruner_startup_trials=2),
    confirmation=Confirmation(seeds=3, folds=1, epochs=4, defaults=True, incumbents=1),
)
