"""Does AdaTriplet find the same chests, years later, better than the losses it was compared with?

Table 5 of Nguyen et al. (MICCAI 2022) anew: every loss in it, nothing searched, trained and tested by the published protocol.
ResNet-18 from ImageNet, 280 pixels cropped to 256, batches of 32 people x 4 images, Adam at 1e-4, 100 epochs, five folds whose
models answer together, five seeds; the test is the official list,
first visits are the gallery, and time is the difference of whole years of age.
The paper's own figures stand beside in the report, with what is known about why they may differ.

It reads data/cxr14, seen from where the command is given (links will do), and the ImageNet weights from
https://download.pytorch.org/models/resnet18-f37072fd.pth, kept where torch.hub keeps them. `phantom` needs none of it.
"""

import dataclasses
from typing import Any

from marginlab import losses as L
from marginlab.augment import Augment
from marginlab.data.phantom import Cxr14Phantom
from marginlab.margins import AutoMargin, FixedMargin, NoMargin
from marginlab.networks import ResNet18
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training

WEIGHTS = "~/.cache/torch/hub/checkpoints/resnet18-f37072fd.pth"
SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"

# Margins are the released configuration's (epsilon 0.25, beta 0, K 2); of the baselines it gives none: the losses' own defaults.
rows: dict[str, tuple[Any, Any]] = {
    "softtriple": (L.SoftTriple(), NoMargin()),
    "arcface": (L.ArcFace(), NoMargin()),
    "triplet": (L.Triplet(), FixedMargin(beta=None)),
    "contrastive": (L.Contrastive(), NoMargin()),
    "wat": (L.WAT(), NoMargin()),
    "sct": (L.SCT(), NoMargin()),
    "adatriplet": (L.AdaTriplet(), FixedMargin()),
    "adatriplet/automargin": (L.AdaTriplet(), AutoMargin()),
}


def arms(training: Training) -> list[Arm]:
    return [Arm(name, dataclasses.replace(training, loss=a, margin=b)) for name, (a, b) in rows.items()]


study = Study(
    name="adatriplet-cxr14",
    question="Does AdaTriplet find the same chests, years later, better than the losses it was compared with?",
    datasets=[Dataset("cxr14", root="data/cxr14")],
    arms=arms(Training(network=ResNet18(weights=WEIGHTS, sha256=SHA256))),
    search=Search(
        epochs_budget=1, max_epochs=1
    ),  # one trial of one epoch: a winner is needed, and there is one candidate
    confirmation=Confirmation(seeds=5, folds=5, epochs=100),
    comparison=Comparison(contrast=("adatriplet/automargin", "triplet"), margin=0.01),
)
phantom = dataclasses.replace(
    study,
    name="adatriplet-cxr14-phantom",
    datasets=[Dataset("cxr14", phantom=Cxr14Phantom(60), size=70)],
    arms=arms(Training(augment=Augment(crop=64), lr=2e-3)),
    confirmation=Confirmation(seeds=2, folds=2, epochs=2),
)
