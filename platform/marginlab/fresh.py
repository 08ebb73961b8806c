"""What a study trains on fresh seeds once its searches are over: winners, published defaults, and the searches' incumbents.

Each configuration of a search is trained on fresh seeds once: where the published default has won, or was an incumbent, the
runs of the one serve the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from marginlab.plan import Plan, SearchKey, Task

Params = dict[str, Any]
KINDS = ("confirmation", "default", "incumbent")  # in the order in which they are trained


@dataclass(frozen=True, eq=False)
class Fresh:
    """Made of what the searches have found so far."""

    plan: Plan
    winners: Mapping[SearchKey, Params | None]  # None where a search has no winner
    leading: Mapping[SearchKey, tuple[tuple[int, Params], ...] | None]  # (trial, its parameters); None: not known

    @classmethod
    def of(cls, plan: Plan, found: Mapping[str, Mapping[str, Any]]) -> Fresh:
        """``found``: by search, as ``marginlab.search.summarize`` has it."""
        keys = [key for key in plan.searches() if str(key) in found]
        leading = {key: _leading(found[str(key)].get("incumbents")) for key in keys}
        return cls(plan, {key: found[str(key)].get("params") for key in keys}, leading)

    def tasks(self) -> list[Task]:
        plan = self.plan
        tasks = [
            t for key, params in self.winners.items() if params is not None for t in plan.confirmations(key, params)
        ]
        tasks += [t for key in self.defaulted for t in plan.defaults(key)]
        return tasks + [t for key in self.winners for trial in self.again(key) for t in plan.incumbents(key, *trial)]

    @cached_property
    def defaulted(self) -> list[SearchKey]:
        """The first search of every arm whose published default is to be trained and has not won that search."""
        return [key for key in self._first if self.winners.get(key) != self._default(key)]

    @cached_property
    def served(self) -> list[SearchKey]:
        """Those whose published default has won: the runs that confirm it are the default's too."""
        return [key for key in self._first if self.winners.get(key) == self._default(key)]

    def again(self, key: SearchKey) -> list[tuple[int, Params]]:
        """The incumbents of a search that are trained again, each configuration once: (the first trial that had it, its
        parameters)."""
        rules = self.plan.study.confirmation
        seen = []
        if self.covered:
            seen = [self.winners.get(key)] + ([self._default(key)] if rules.defaults else [])
        out = []
        for trial, params in (self.leading.get(key) or ()) if rules.incumbents else ():
            if params not in seen:
                out.append((trial, params))
                seen.append(params)
        return out

    @property
    def covered(self) -> bool:
        """Whether winner and default are measured in confirmation as trials are: on the search's folds, at its last epoch."""
        return covers(self.plan)

    def wants(self, labels: Mapping[str, Any]) -> bool:
        """Whether a run on fresh seeds is one of :meth:`tasks`. Of a search that left no record, every planned one is."""
        rules, kind = self.plan.study.confirmation, labels["kind"]
        key = SearchKey(labels["dataset"], labels["arm"], labels["replicate"])
        if key not in self._planned:
            return False
        if kind == "incumbent":
            planned = labels["seed_index"] < rules.incumbents and labels["fold"] in self.plan.study.search.folds
            known = self.leading.get(key)
            return bool(planned) and (known is None or any(labels["params"] == p for _, p in self.again(key)))
        planned = bool(labels["seed_index"] < rules.seeds and labels["fold"] < rules.folds)
        if kind == "default":
            return planned and key in self.defaulted
        return planned and bool(self.winners.get(key, labels["params"]) == labels["params"])

    def counts(self) -> dict[str, int]:
        """Planned runs by kind. A search without a winner counts as if it had one; its incumbents are those so far."""
        study = self.plan.study
        each = study.confirmation.seeds * study.confirmation.folds
        leaders = sum(len(self.again(key)) for key in self.winners)
        return {
            "confirmation": self.plan.confirmation_count() * len(study.datasets),
            "default": len(self.defaulted) * each,
            "incumbent": leaders * study.confirmation.incumbents * len(study.search.folds),
        }

    @cached_property
    def _first(self) -> list[SearchKey]:
        asked = self.plan.study.confirmation.defaults
        return [key for key in self.plan.searches() if key.replicate == 0 and asked]

    @cached_property
    def _planned(self) -> set[SearchKey]:
        return set(self.plan.searches())

    def _default(self, key: SearchKey) -> Params:
        return self.plan.study.arm(key.arm).starts()[0]


def covers(plan: Plan) -> bool:
    """:attr:`Fresh.covered`, which no search has a say in."""
    search, rules = plan.study.search, plan.study.confirmation
    return set(search.folds) <= set(range(rules.folds)) and plan.epochs("confirmation") >= search.max_epochs


def _leading(found: Iterable[Mapping[str, Any]] | None) -> tuple[tuple[int, Params], ...] | None:
    return None if found is None else tuple((f["trial"], dict(f["params"])) for f in found)
