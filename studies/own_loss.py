"""A loss and a margin policy of your own against AdaTriplet: nothing to install or register, workers get them from this file."""

from typing import ClassVar

from torch import where
from torch.nn.functional import softplus

from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.losses import AdaTriplet, LossTerms, Pairs
from marginlab.margins import FixedMargin, Margin, Statistics
from marginlab.space import uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training
from marginlab.values import value


@value
class SoftPairs:
    """Negatives below beta, positives above beta + epsilon, by a softplus whose ``width`` (in similarity) is its softness."""

    width: float = 0.1
    slots: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        far = softplus((margin.beta + margin.epsilon - pairs.sim) / self.width)
        near = softplus((pairs.sim - margin.beta) / self.width)
        pull = pairs.total(where(pairs.positive_pairs, far, 0).sum().double())  # over all ranks
        push = pairs.total(where(pairs.negative_pairs, near, 0).sum().double())
        pull, push = pairs.mean(pull, pairs.positive_count), pairs.mean(push, pairs.negative_count)
        return LossTerms(pull + push, {"pull": pull.detach(), "push": push.detach()}, active={})


@value
class Halfway:
    """Epsilon stays 0.1, beta is halfway between the last epoch's mean negative and mean positive similarity."""

    sets: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def start(self) -> Margin:
        return Margin.of(epsilon=0.1, beta=0.5)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        return Margin(margin.epsilon, (statistics.neg_mean + statistics.pos_mean) / 2)


own = Training(SoftPairs(), Halfway(), augment=Augment(crop=64), lr=2e-3)
ada = Training(AdaTriplet(), FixedMargin(), augment=Augment(crop=64), lr=2e-3)
study = phantom = Study(
    name="own-loss",
    datasets=[Dataset("oai", phantom=OaiPhantom(subjects=60), size=70)],
    arms=[
        Arm("softpairs/halfway", own, space={"loss.width": uniform(0.02, 0.5)}),
        Arm("adatriplet/fixed", ada, space={"margin.epsilon": uniform(0.05, 0.6)}),
    ],
    search=Search(epochs_budget=4, max_epochs=2, startup_trials=1),
    confirmation=Confirmation(seeds=2, folds=1, resources=Resources(workers=2)),
    comparison=Comparison(contrast=("softpairs/halfway", "adatriplet/fixed")),
)
