import dataclasses
from typing import Any

import pytest

from marginlab.augment import Augment
from marginlab.cluster.preflight import concurrency, gpus_per_worker, launcher, preflight
from marginlab.networks import ResNet18
from marginlab.study import Arm, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training
from marginlab.values import InputError

SMALL = Training(augment=Augment(crop=64), batch_size=32)


ONE = Resources()


def a_study(training: Training = SMALL, search: Resources = ONE, confirmation: Resources = ONE, **more: Any) -> Study:
    return Study(
        "s",
        [Dataset("oai", root="r", size=70)],
        [Arm("a", training)],
        Search(8, 4, resources=search),
        Confirmation(resources=confirmation),
        **more,
    )


@pytest.mark.parametrize(
    ("study", "available", "says"),
    [
        (
            a_study(search=Resources(workers=3, cpus=2)),
            {"CPU": 4},
            "Search needs 6 CPUs for one run .3 workers., and there are 4",
        ),
        (
            a_study(confirmation=Resources(gpus=1)),
            {"CPU": 4},
            "Confirmation needs 1 GPUs for one run .1 workers., and there are 0",
        ),
        (a_study(search=Resources(workers=2, gpus=0.5)), {"CPU": 4, "GPU": 4}, "which NCCL refuses"),
        (a_study(search=Resources(workers=3)), {"CPU": 4}, "8 identities in a batch, which 3 workers"),
        (
            a_study(dataclasses.replace(SMALL, augment=Augment(crop=100))),
            {"CPU": 4},
            "crops 100 pixels from images of 70",
        ),
        (
            a_study(dataclasses.replace(SMALL, network=ResNet18()), confirmation=Resources(workers=2)),
            {"CPU": 4},
            "would normalise differently",
        ),
        (
            a_study(dataclasses.replace(SMALL, network=ResNet18()), confirmation=Resources(chunk=8)),
            {"CPU": 4},
            r"Arm 'a', Confirmation.resources.chunk=8: .* normalises by the batch .BatchNorm2d.",
        ),
    ],
)
def test_what_could_never_run_is_refused(study: Study, available: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        preflight(study, available)


def test_what_can_run_is_not() -> None:
    preflight(a_study(confirmation=Resources(workers=2)), {"CPU": 2})
    preflight(a_study(confirmation=Resources(workers=2)), {"CPU": 16, "GPU": 1})  # two workers on one GPU stay on CPUs
    network = dataclasses.replace(SMALL, network=ResNet18())
    preflight(a_study(network, confirmation=Resources(workers=2), mixed_normalisation=True), {"CPU": 2})
    preflight(a_study(network, confirmation=Resources(workers=2)), {"CPU": 2, "GPU": 2})
    preflight(a_study(search=Resources(chunk=8), confirmation=Resources(workers=2, chunk=8)), {"CPU": 2})
    preflight(a_study(network, search=Resources(chunk=32)), {"CPU": 2})  # a batch in one piece


def test_automatic_choices() -> None:
    one, two = Resources(), Resources(workers=2)
    assert [gpus_per_worker(one, {"GPU": n}) for n in (0, 1, 8)] == [0, 1, 1]
    assert [gpus_per_worker(two, {"GPU": n}) for n in (0, 1, 2)] == [0, 0, 1]
    assert launcher(one, {"CPU": 2}) == "inline" and launcher(two, {"CPU": 2}) == "train"
    assert launcher(one, {"CPU": 2, "GPU": 1}) == "train"
    assert launcher(Resources(launcher="inline"), {"GPU": 1}) == "inline"
    assert concurrency("Search", one, {"CPU": 5}) == 5 and concurrency("Search", two, {"CPU": 5}) == 2
    assert concurrency("Search", one, {"CPU": 16, "GPU": 4}) == 4
