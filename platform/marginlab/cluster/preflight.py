"""What a study needs against what there is: refused early where it could never run. Does not import Ray."""

from __future__ import annotations

from marginlab.cluster.machines import Machines, amounts
from marginlab.networks import build_seeded, normalises_by_batch
from marginlab.networks.parts import cut
from marginlab.study import Resources, Study
from marginlab.values import InputError


def gpus_per_worker(resources: Resources, machines: Machines) -> float:
    """``auto`` is one GPU for every worker where there are as many, else none."""
    if isinstance(resources.gpus, str):
        return 1.0 if machines.workers(resources.cpus, 1) >= resources.workers else 0.0
    return float(resources.gpus)


def launcher(resources: Resources, machines: Machines) -> str:
    """``auto`` is a Ray Train worker group wherever a run uses a GPU or more than one worker, else the trial's own process."""
    if resources.launcher != "auto":
        return resources.launcher
    return "train" if resources.workers > 1 or gpus_per_worker(resources, machines) > 0 else "inline"


def concurrency(what: str, resources: Resources, machines: Machines) -> int:
    """How many runs of these resources fit at once. Raises where not even one ever will."""
    gpus = gpus_per_worker(resources, machines)
    if resources.workers > 1 and 0 < gpus < 1:
        raise InputError(
            f"{what}.resources shares a GPU ({gpus:g}) among workers of one run, which NCCL refuses: gpus=1, or workers=1."
        )
    for name, each in {"CPU": resources.cpus, "GPU": gpus}.items():
        if resources.workers * each > machines.total(name):
            raise InputError(
                f"{what} needs {resources.workers * each:g} {name}s for one run ({resources.workers} workers), and there are "
                f"{machines.total(name):g}: lower {what}.resources, or run where there are more."
            )
    fit = machines.workers(resources.cpus, gpus)
    if fit < resources.workers:
        raise InputError(
            f"{what} needs {amounts({'CPU': resources.cpus, 'GPU': gpus})} on one machine for each of a run's "
            f"{resources.workers} workers, and {f'only {fit} such fit' if fit else 'none such fits'}: there are {machines}. Lower "
            f"{what}.resources, or run on other machines."
        )
    return fit // resources.workers


def preflight(study: Study, machines: Machines) -> None:
    """Refuse what the cluster can never schedule, what a batch cannot be dealt to, and what would not compare."""
    phases = {"Search": study.search.resources, "Confirmation": study.confirmation.resources}
    for what, resources in phases.items():
        concurrency(what, resources, machines)
        for arm in study.arms:
            t = arm.training
            shares, of = t.batch_size // (t.per_identity or 1), "identities" if t.per_identity else "images"
            if shares % resources.workers:
                raise InputError(
                    f"Arm {arm.name!r} has {shares} {of} in a batch, which {resources.workers} workers ({what}) cannot "
                    "share evenly: change Training.batch_size or the number of workers."
                )
            if resources.chunk is not None and resources.chunk < t.batch_size // resources.workers:
                try:
                    cut(build_seeded(t.network, 1, 0).train())
                except InputError as e:
                    raise InputError(f"Arm {arm.name!r}, {what}.resources.chunk={resources.chunk}: {e}") from None
    for arm in study.arms:
        for dataset in study.datasets:
            if arm.training.augment.crop > dataset.size:
                raise InputError(
                    f"Arm {arm.name!r} crops {arm.training.augment.crop} pixels from images of {dataset.size} "
                    f"({dataset.name}): lower Augment.crop or raise Dataset.size."
                )
    search, confirmation = phases.values()
    if search.workers == confirmation.workers or study.mixed_normalisation:
        return
    on_cpus = [r for r in phases.values() if r.workers > 1 and gpus_per_worker(r, machines) == 0]
    for arm in study.arms:
        if on_cpus and normalises_by_batch(arm.training.network):
            raise InputError(
                f"Arm {arm.name!r} uses batch normalisation, which on CPUs sees one worker's part of a batch: search "
                f"({search.workers} workers) and confirmation ({confirmation.workers}) would normalise differently. Give both "
                "as many workers, use GPUs or a network without it, or say Study(mixed_normalisation=True)."
            )
