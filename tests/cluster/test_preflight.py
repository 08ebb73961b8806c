import dataclasses
from typing import Any

import pytest
from torch import nn

from marginlab.augment import Augment
from marginlab.cluster.machines import Machines
from marginlab.cluster.preflight import concurrency, gpus_per_worker, launcher, preflight
from marginlab.networks import ResNet18
from marginlab.study import Arm, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training
from marginlab.values import InputError, value

SMALL = Training(augment=Augment(crop=64), batch_size=32)


ONE = Resources()


class Uncuttable(nn.Module):
    """Too many batch normalisations, and nothing says in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(13))


@value
class Uncut:
    def build(self, channels: int) -> nn.Module:
        return Uncuttable()


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
    ("study", "machines", "says"),
    [
        (
            a_study(search=Resources(workers=3, cpus=2)),
            Machines.one(4),
            "Search needs 6 CPUs for one run .3 workers., and there are 4",
        ),
        (
            a_study(confirmation=Resources(gpus=1)),
            Machines.one(4),
            "Confirmation needs 1 GPUs for one run .1 workers., and there are 0",
        ),
        (a_study(search=Resources(workers=2, gpus=0.5)), Machines.one(4, 4), "which NCCL refuses"),
        (a_study(search=Resources(workers=3)), Machines.one(4), "8 identities in a batch, which 3 workers"),
        (
            a_study(search=Resources(workers=2, cpus=3)),
            Machines(((4, {"CPU": 2.0}), (1, {"CPU": 4.0}))),
            "3 CPUs on one machine for each of a run's 2 workers, and only 1 such fit: there are 4 machines with 2 CPUs, 1 machine with 4",
        ),
        (
            a_study(search=Resources(gpus=1, cpus=2)),
            Machines(((1, {"CPU": 8.0}), (1, {"CPU": 1.0, "GPU": 1.0}))),
            "2 CPUs and 1 GPU on one machine for each of a run's 1 workers, and none such fits",
        ),
        (
            a_study(dataclasses.replace(SMALL, augment=Augment(crop=100))),
            Machines.one(4),
            "crops 100 pixels from images of 70",
        ),
        (
            a_study(dataclasses.replace(SMALL, network=ResNet18()), confirmation=Resources(workers=2)),
            Machines.one(4),
            "would normalise differently",
        ),
        (
            a_study(dataclasses.replace(SMALL, network=Uncut()), confirmation=Resources(chunk=8)),
            Machines.one(4),
            r"Arm 'a', Confirmation.resources.chunk=8: .* its Uncuttable has 13 batch normalisations",
        ),
    ],
)
def test_what_could_never_run_is_refused(study: Study, machines: Machines, says: str) -> None:
    with pytest.raises(InputError, match=says):
        preflight(study, machines)


def test_what_can_run_is_not() -> None:
    preflight(a_study(confirmation=Resources(workers=2)), Machines.one(2))
    preflight(a_study(confirmation=Resources(workers=2)), Machines.one(16, 1))  # two workers on one GPU stay on CPUs
    network = dataclasses.replace(SMALL, network=ResNet18())
    preflight(a_study(network, confirmation=Resources(workers=2), mixed_normalisation=True), Machines.one(2))
    preflight(a_study(network, confirmation=Resources(workers=2)), Machines.one(2, 2))
    preflight(a_study(search=Resources(chunk=8), confirmation=Resources(workers=2, chunk=8)), Machines.one(2))
    preflight(a_study(network, search=Resources(chunk=8)), Machines.one(2))
    uncut = dataclasses.replace(SMALL, network=Uncut())
    preflight(a_study(uncut, search=Resources(chunk=32)), Machines.one(2))  # a batch in one piece


def test_automatic_choices() -> None:
    one, two = Resources(), Resources(workers=2)
    assert [gpus_per_worker(one, Machines.one(8, n)) for n in (0, 1, 8)] == [0, 1, 1]
    assert [gpus_per_worker(two, Machines.one(8, n)) for n in (0, 1, 2)] == [0, 0, 1]
    assert launcher(one, Machines.one(2)) == "inline" and launcher(two, Machines.one(2)) == "train"
    assert launcher(one, Machines.one(2, 1)) == "train"
    assert launcher(Resources(launcher="inline"), Machines.one(1, 1)) == "inline"
    assert concurrency("Search", one, Machines.one(5)) == 5 and concurrency("Search", two, Machines.one(5)) == 2
    assert concurrency("Search", one, Machines.one(16, 4)) == 4


@pytest.mark.parametrize(
    ("resources", "machines", "at_once"),
    [
        (Resources(gpus=0.5), Machines.one(8, 2), 4),
        (Resources(gpus=0.4), Machines.one(8, 2), 4),  # two to a GPU: a fifth of each stays free
        (Resources(gpus=0.1, cpus=2), Machines.one(8, 2), 4),
        (Resources(gpus=1), Machines.one(8, 3), 3),
        (Resources(workers=2, gpus=1), Machines(((3, {"CPU": 8.0, "GPU": 1.0}),)), 1),  # over two machines
        (Resources(cpus=3), Machines(((2, {"CPU": 4.0}), (1, {"CPU": 8.0}))), 4),
        (Resources(cpus=0.1), Machines.one(1), 10),
    ],
)
def test_what_fits_at_once(resources: Resources, machines: Machines, at_once: int) -> None:
    assert concurrency("Search", resources, machines) == at_once


def test_a_gpu_for_every_worker_is_one_on_the_workers_own_machine() -> None:
    apart = Machines(((1, {"CPU": 8.0}), (1, {"CPU": 1.0, "GPU": 2.0})))
    assert gpus_per_worker(Resources(cpus=2), apart) == 0 and gpus_per_worker(Resources(), apart) == 1


def test_machines_are_counted_by_kind() -> None:
    machines = Machines.of([{"CPU": 8, "GPU": 1, "memory": 1e9}, {"CPU": 4}, {"GPU": 1.0, "CPU": 8.0}, {}])
    assert str(machines) == "2 machines with 8 CPUs and 1 GPU, 1 machine with 4 CPUs"
    assert machines.total("CPU") == 20 and machines.total("GPU") == 2
