"""What a study will do, worked out without doing any of it: searches, trials' runs, runs on fresh seeds, and where each lives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginlab.study import Arm, Study
from marginlab.training import Run
from marginlab.values import stable_seed

OPENS_TEST = ("confirmation", "default")  # the kinds of run for which the test split exists
_BEYOND = 1 << 32  # above every seed of searches and confirmation


@dataclass(frozen=True)
class SearchKey:
    """Names one search of a study."""

    dataset: str
    arm: str
    replicate: int

    def __str__(self) -> str:
        return f"{self.dataset}/{self.arm}/r{self.replicate}"


@dataclass(frozen=True)
class Task:
    """A run, the folder it lives in (relative to the study's folder) and its place in the study."""

    run: Run
    folder: str
    labels: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A study and the fingerprints of its packed datasets."""

    study: Study
    data: dict[str, str]
    phantoms: tuple[str, ...] = ()  # the datasets whose images are synthetic

    def searches(self) -> list[SearchKey]:
        """Replicate by replicate, dataset by dataset, arm by arm."""
        s = self.study
        return [SearchKey(d.name, a.name, r) for r in range(s.search.replicates) for d in s.datasets for a in s.arms]

    def trial(self, key: SearchKey, number: int, params: dict[str, Any], fold: int) -> Task:
        arm, search = self.study.arm(key.arm), self.study.search
        # Search seeds are even and confirmation seeds odd: none of the one is ever one of the other.
        seed = stable_seed(self.study.seed, "search", key, number) & ~1
        run = Run(key.dataset, self.data[key.dataset], arm.configured(params, search.max_epochs), fold, seed)
        labels = {**self._labels("trial", key, arm), "trial": number, "fold": fold, "seed": seed, "params": params}
        return Task(run, self._folder(key, arm, f"trial-{number:04d}", fold, run), labels)

    def confirmations(self, key: SearchKey, params: dict[str, Any]) -> list[Task]:
        """The winner's runs: every seed on every fold. All arms share their seeds, so that they can be paired."""
        return self._confirming("confirmation", key, params)

    def defaults(self, key: SearchKey) -> list[Task]:
        """The runs of the arm's published default, paired with the winner's. One search of the arm stands for all."""
        return self._confirming("default", key, self.study.arm(key.arm).starts()[0])

    def _confirming(self, kind: str, key: SearchKey, params: dict[str, Any]) -> list[Task]:
        study, arm = self.study, self.study.arm(key.arm)
        tasks = []
        for index in range(study.confirmation.seeds):
            seed = stable_seed(study.seed, "confirmation", index) | 1
            for fold in range(study.confirmation.folds):
                run = Run(key.dataset, self.data[key.dataset], arm.configured(params, self.epochs(kind)), fold, seed)
                labels = self._fresh_labels(kind, key, arm, index, run, params)
                tasks.append(Task(run, self._folder(key, arm, f"{kind}-{index:02d}", fold, run), labels))
        return tasks

    def incumbents(self, key: SearchKey, trial: int, params: dict[str, Any]) -> list[Task]:
        """A search's best trial at some point of it, trained as the search trains; seeds are those of no other kind of run."""
        study, arm = self.study, self.study.arm(key.arm)
        tasks = []
        for index in range(study.confirmation.incumbents):
            seed = _BEYOND + stable_seed(study.seed, "incumbent", index)
            for fold in study.search.folds:
                training = arm.configured(params, self.epochs("incumbent"))
                run = Run(key.dataset, self.data[key.dataset], training, fold, seed)
                labels = {**self._fresh_labels("incumbent", key, arm, index, run, params), "trial": trial}
                name = f"incumbent-{trial:04d}-{index:02d}"
                tasks.append(Task(run, self._folder(key, arm, name, fold, run), labels))
        return tasks

    def epochs(self, kind: str) -> int:
        """What a run of this kind trains, unless it is pruned."""
        study = self.study
        return (study.confirmation.epochs if kind in OPENS_TEST else None) or study.search.max_epochs

    def confirmation_count(self) -> int:
        """How many runs confirm winners, per dataset."""
        s = self.study
        return len(s.arms) * s.search.replicates * s.confirmation.seeds * s.confirmation.folds

    def _labels(self, kind: str, key: SearchKey, arm: Arm) -> dict[str, Any]:
        return {
            "kind": kind,
            "study": self.study.name,
            "dataset": key.dataset,
            "arm": key.arm,
            "margin_policy": arm.margin_policy,
            "replicate": key.replicate,
            "phantom": key.dataset in self.phantoms,
            **({"simulated": True} if self.study.dataset(key.dataset).curves else {}),
        }

    def _fresh_labels(
        self, kind: str, key: SearchKey, arm: Arm, index: int, run: Run, params: dict[str, Any]
    ) -> dict[str, Any]:
        place = {"seed_index": index, "fold": run.fold, "seed": run.seed, "params": params}
        return {**self._labels(kind, key, arm), **place}

    @staticmethod
    def _folder(key: SearchKey, arm: Arm, name: str, fold: int, run: Run) -> str:
        return str(Path("runs") / key.dataset / arm.slug / f"r{key.replicate}" / f"{name}-f{fold}-{run.id[:8]}")
