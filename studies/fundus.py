"""Do mirror attention and the fine triplet loss find fundus photographs of the same grade? And do margins that tune themselves?

After Fang et al. (Biomed. Signal Process. Control 80, 2023): DenseNet-121 from ImageNet with two mirrored views, 256 pixels from 0 to
1, nothing augmented, shuffled batches of 128, Adam at 1e-3 with weight decay 1e-5, 50 epochs; the gallery is the training split, an
answer is right if it has the query's grade. Not as there: the split is by patient (theirs leaks), a fold validates.

It reads data/eyepacs and, where torch.hub keeps them, https://download.pytorch.org/models/densenet121-a639ec97.pth; `phantom` neither.
"""

import dataclasses
from typing import Any

from marginlab.augment import Augment
from marginlab.data.phantom import EyePacsPhantom
from marginlab.losses import AdaTriplet, FineTriplet
from marginlab.margins import AutoMargin, FixedMargin, NoMargin
from marginlab.networks import DenseNet121, MirrorAttention, SelfAttention, SmallNetwork
from marginlab.space import loguniform, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training

WEIGHTS = "~/.cache/torch/hub/checkpoints/densenet121-a639ec97.pth"
fine = {"loss.scale": loguniform(0.5, 16), "loss.margin": uniform(0.1, 0.5)}
tuned = {"margin.k_delta": loguniform(1, 8), "margin.k_an": loguniform(1, 8)}
fixed = {"margin.epsilon": uniform(0.05, 0.6), "margin.beta": uniform(-0.2, 0.6)}
compared: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "mirror/fine-triplet": (MirrorAttention, FineTriplet(), NoMargin(), fine),
    "mirror/no-degrees": (MirrorAttention, FineTriplet(degrees=False), NoMargin(), fine),
    "self/fine-triplet": (SelfAttention, FineTriplet(), NoMargin(), fine),
    "mirror/automargin": (MirrorAttention, AdaTriplet(), AutoMargin(), tuned),
    "mirror/fixed": (MirrorAttention, AdaTriplet(), FixedMargin(), fixed),
}


def arms(backbone: Any, crop: int, **others: Any) -> list[Arm]:
    like = Training(augment=Augment(crop, probability=0.0), per_identity=None, weight_decay=1e-5, **others)
    return [
        Arm(name, dataclasses.replace(like, network=network(backbone), loss=loss, margin=margin), space)
        for name, (network, loss, margin, space) in compared.items()
    ]


study = Study(
    name="fundus",
    question="Do mirror attention and the fine triplet loss find fundus photographs of the same grade?",
    datasets=[Dataset("eyepacs", root="data/eyepacs", size=256, label="grade")],
    arms=arms(DenseNet121(weights=WEIGHTS, sha256="a639ec97"), 256, batch_size=128, lr=1e-3),
    search=Search(epochs_budget=300, max_epochs=20, objective="val/mhr_at_10"),
    confirmation=Confirmation(seeds=5, folds=1, epochs=50, defaults=True),
    comparison=Comparison(primary="test/mhr_at_10", contrast=("mirror/fine-triplet", "self/fine-triplet"), margin=0.01),
)
phantom = dataclasses.replace(
    study,
    name="fundus-phantom",
    datasets=[Dataset("eyepacs", phantom=EyePacsPhantom(250), size=64, label="grade")],
    arms=arms(SmallNetwork(), 64, batch_size=64, lr=2e-3),
    search=Search(epochs_budget=8, max_epochs=2, startup_trials=2, pruner_startup_trials=2, objective="val/mhr_at_10"),
    confirmation=Confirmation(seeds=2, folds=1, epochs=3, defaults=True),
)
