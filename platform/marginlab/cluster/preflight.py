"""What a study needs against what there is: refused early where it could never run. Does not import Ray."""

from __future__ import annotations

from marginlab.networks import build_seeded, normalises_by_batch
from marginlab.networks.parts import cut
from marginlab.study import Resources, Study
from marginlab.values import InputError


def gpus_per_worker(resources: Resources, available: dict[str, float]) -> float:
    """``auto`` is one GPU for every worker where there are as many, else none."""
    if isinstance(resources.gpus, str):
        return 1.0 if available.get("GPU", 0) >= resources.workers else 0.0
    return float(resources.gpus)


def launcher(resources: Resources, available: dict[str, float]) -> str:
    """``auto`` is a Ray Train worker group wherever a run uses a GPU or more than one worker, else the trial's own process."""
    if resources.launcher != "auto":
        return resources.launcher
    return "train" if resources.workers > 1 or gpus_per_worker(resources, available) > 0 else "inline"


def concurrency(what: str, resources: Resources, available: dict[str, float]) -> int:
    """How many runs of these resources fit at once. Raises where not even one ever will."""
    gpus = gpus_per_worker(resources, available)
    if resources.workers > 1 and 0 < gpus < 1:
        raise InputError(
            f"{what}.resources shares a GPU ({gpus:g}) among workers of one run, which NCCL refuses: gpus=1, or workers=1."
        )
    need = {"CPU": resources.workers * resources.cpus, "GPU": resources.workers * gpus}
    for name, amount in need.items():
        if amount > available.get(name, 0):
            raise InputError(
                f"{what} needs {amount:g} {name}s for one run ({resources.workers} workers), and there are "
                f"{available.get(name, 0):g}: lower {what}.resources, or run where there are more."
            )
    return max(1, min(int(available.get(name, 0) // amount) for name, amount in need.items() if amount > 0))


def preflight(study: Study, available: dict[str, float]) -> None:
    """Refuse what the cluster can never schedule, what a batch cannot be dealt to, and what would not compare."""
    phases = {"Search": study.search.resources, "Confirmation": study.confirmation.resources}
    for what, resources in phases.items():
        concurrency(what, resources, available)
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
    on_cpus = [r for r in phases.values() if r.workers > 1 and gpus_per_worker(r, available) == 0]
    for arm in study.arms:
        if on_cpus and normalises_by_batch(arm.training.network):
            raise InputError(
                f"Arm {arm.name!r} uses batch normalisation, which on CPUs sees one worker's part of a batch: search "
                f"({search.workers} workers) and confirmation ({confirmation.workers}) would normalise differently. Give both "
                "as many workers, use GPUs or a network without it, or say Study(mixed_normalisation=True)."
            )
