"""One Optuna study per search; its storage is the only truth of a search. Knows nothing of Ray.

A :class:`Book` holds all searches of a study. It is asked for trials, told every epoch's objective, and answers whether to go
on. A search spends epochs, not trials: pruned trials give theirs back, and a trial starts only if it can finish.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from marginlab.plan import Plan, SearchKey
from marginlab.study import Search
from marginlab.study_database import StudyDatabase
from marginlab.values import stable_seed

optuna.logging.set_verbosity(optuna.logging.ERROR)

MODELLED = "modelled"  # user attribute: did TPE suggest it (or was it a start, or random)?
REASON = "reason"  # user attribute: why it failed
TOKEN = "token"  # user attribute: who holds it
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
HOPELESS = 3  # failures without a single trial that ended well, after which a search is given up


class StatelessSampler(optuna.samplers.BaseSampler):
    """TPE whose suggestion n depends on (seed, search, n, parameter) and the trials told before, not on this process's past.

    A trial that was half asked for when the process died is so completed with the values it would have had.
    The first trials are the arm's starts.
    """

    def __init__(self, seed: int, starts: list[dict[str, Any]], startup_trials: int) -> None:
        self.seed, self.starts, self.startup_trials = seed, starts, startup_trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if trial.number < len(self.starts):
            return self.starts[trial.number][param_name]
        seed = stable_seed(self.seed, study.study_name, trial.number, param_name)
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup_trials)
        return tpe.sample_independent(study, trial, param_name, param_distribution)

    def models(self, study: optuna.Study, number: int) -> bool:
        """Whether trial ``number``, asked for now, comes from the model (TPE counts the trials that ended well)."""
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return number >= len(self.starts) and len(ended) >= self.startup_trials


@dataclass
class Ticket:
    """A trial in somebody's hands."""

    key: SearchKey
    number: int
    params: dict[str, Any]


@dataclass
class _Live:
    ticket: Ticket
    trial: optuna.Trial
    seen: int  # the last step in the storage, 0 for none


FEW = 8  # ended trials of a study: from as many the share of failed ones is judged
WAIT = "wait"  # no trial now, but one that is running may give epochs back
FINISHED = "finished"


class Book:
    """The searches of a study, over one storage of which it is the only writer."""

    def __init__(
        self,
        plan: Plan,
        storage: str | optuna.storages.BaseStorage,
        session: str = "",
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            session: tokens that begin with it belong to workers that are alive; other unended trials are orphans.
            late: whether the time for searching is over: no new trial begins then, those begun are ended.
        """
        self.plan, self.rules, self.late = plan, plan.study.search, late
        self.live: dict[str, _Live] = {}
        self._orphans: list[tuple[int, int, SearchKey, int]] = []
        self._studies: dict[SearchKey, optuna.Study] = {}
        self._spaces: dict[SearchKey, dict[str, BaseDistribution]] = {}
        self._samplers: dict[SearchKey, StatelessSampler] = {}
        backend = optuna.storages.get_storage(storage)
        for order, key in enumerate(plan.searches()):
            arm = plan.study.arm(key.arm)
            self._spaces[key] = {path: allowed.distribution() for path, allowed in arm.space.items()}
            sampler = StatelessSampler(plan.study.seed, arm.starts(), self.rules.startup_trials)
            pruner = optuna.pruners.MedianPruner(
                n_startup_trials=self.rules.pruner_startup_trials,
                n_warmup_steps=self.rules.pruner_warmup_epochs + 1,  # Optuna judges a step that equals this number
            )
            study = optuna.create_study(
                study_name=str(key),
                storage=backend,
                direction="maximize",
                load_if_exists=True,
                sampler=sampler,
                pruner=pruner,
            )
            self._studies[key], self._samplers[key] = study, sampler
            for t in study.get_trials(deepcopy=False):
                if t.state.is_finished():
                    continue
                token = t.user_attrs.get(TOKEN, "")
                if session and token.startswith(session):  # this book was restarted, the worker was not
                    ticket = Ticket(key, t.number, dict(t.params))
                    self.live[token] = _Live(ticket, optuna.Trial(study, t._trial_id), t.last_step or 0)
                else:
                    self._orphans.append((t.number, order, key, t._trial_id))
        self._orphans.sort(key=lambda o: o[:2])

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, token: str) -> Ticket | str:
        """The next trial for a worker, or WAIT, or FINISHED. A token that has one gets the same again (its actor restarted)."""
        if token in self.live:
            return self.live[token].ticket
        if self._orphans:
            _, _, key, trial_id = self._orphans.pop(0)
            trial = optuna.Trial(self._studies[key], trial_id)
            if MODELLED not in trial.user_attrs:  # the kill fell inside an ask
                trial.set_user_attr(MODELLED, self._samplers[key].models(self._studies[key], trial.number))
            for name, allowed in self._spaces[key].items():
                trial._suggest(name, allowed)
        else:
            chosen = self._next_search()
            if isinstance(chosen, str):
                return chosen
            key = chosen
            study = self._studies[key]
            number = len(study.get_trials(deepcopy=False))
            modelled = self._samplers[key].models(study, number)
            trial = study.ask(self._spaces[key])
            trial.set_user_attr(MODELLED, modelled)
        trial.set_user_attr(TOKEN, token)
        record = self._frozen(key, trial)
        ticket = Ticket(key, record.number, dict(record.params))
        self.live[token] = _Live(ticket, trial, record.last_step or 0)
        return ticket

    def _next_search(self) -> SearchKey | str:
        """Round-robin: of the searches that can pay for a whole trial, the one with the fewest trials (the first of them)."""
        if self.late():
            return FINISHED
        able, waiting = [], False
        for key in self._studies:
            spent, reserved = self.spent(key)
            waiting = waiting or reserved > 0
            if self._hopeless(key):
                continue
            if spent + reserved + self.rules.trial_epochs <= self.rules.epochs_budget:
                able.append(key)
        if able:
            return min(able, key=lambda k: len(self._studies[k].get_trials(deepcopy=False)))
        return WAIT if waiting else FINISHED

    def _hopeless(self, key: SearchKey) -> bool:
        ended = [t.state for t in self._studies[key].get_trials(deepcopy=False) if t.state.is_finished()]
        return len(ended) >= HOPELESS and all(state == TrialState.FAIL for state in ended)

    def too_many_failed(self) -> str:
        """A sentence, where more than the allowed share of the trials that ended have failed; else empty."""
        ended = [t for s in self._studies.values() for t in s.get_trials(deepcopy=False) if t.state.is_finished()]
        reasons = [str(t.user_attrs.get(REASON, "")) for t in ended if t.state == TrialState.FAIL]
        if len(ended) < FEW or len(reasons) <= self.rules.failed_limit * len(ended):
            return ""
        reason, times = Counter(reasons).most_common(1)[0]
        return (
            f"{len(reasons)} of the {len(ended)} trials that ended have failed, more than Search.failed_limit "
            f"({self.rules.failed_limit:g}) allows; {times} times: {reason} marginlab status lists them. Mend the study and begin it "
            "anew (--fresh), or raise the limit."
        )

    def over(self) -> bool:
        """Whether all budgets are spent (or given up) and no trial is unended."""
        return not self.live and not self._orphans and self._next_search() == FINISHED

    def spent(self, key: SearchKey) -> tuple[int, int]:
        """Epochs that ended trials of a search used, and epochs set aside for its running ones."""
        spent = reserved = 0
        for t in self._studies[key].get_trials(deepcopy=False):
            if t.state.is_finished():
                spent += epochs_of(t)
            else:
                reserved += self.rules.trial_epochs
        return spent, reserved

    # -- telling ----------------------------------------------------------------------------------------------------

    def report(self, token: str, step: int, value: float) -> bool:
        """Write the objective at a step (1 = the first epoch of the first fold); the answer is whether to go on.

        A resumed run reports its epochs again: those the storage has are passed over, missing ones are judged in order.
        A trial that should not go on is told to the storage at once.
        """
        live = self.live.get(token)
        if live is None:
            return False  # told before
        if not math.isfinite(value):
            self.tell(token, "failed", f"The objective was {value} at step {step}.")
            return False
        if step < live.seen:
            return True
        if step > live.seen:
            live.trial.report(value, step)
            live.seen = step
        if step >= self.rules.trial_epochs:
            return True  # nothing left to save
        if live.trial.should_prune():
            self.tell(token, "pruned")
            return False
        return True

    def tell(self, token: str, state: str, reason: str = "") -> None:
        """End a trial: ``complete`` (its value is the last one reported), ``pruned`` or ``failed``. Told twice is told once."""
        live = self.live.pop(token, None)
        if live is None:
            return
        study, number = self._studies[live.ticket.key], live.ticket.number
        values = self._frozen(live.ticket.key, live.trial).intermediate_values
        if state == "complete" and self.rules.trial_epochs not in values:
            state, reason = "failed", reason or "It ended without a value at its last epoch."
        if state == "failed":
            live.trial.set_user_attr(REASON, reason)
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        elif state == "pruned":
            study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            study.tell(number, values[self.rules.trial_epochs], skip_if_finished=True)

    def leave(self, token: str) -> None:
        """Take a trial out of its worker's hands and end nothing: it is an orphan, the first to be given out again."""
        live = self.live.pop(token, None)
        if live is not None:
            order = list(self._studies).index(live.ticket.key)
            self._orphans.append((live.ticket.number, order, live.ticket.key, live.trial._trial_id))
            self._orphans.sort(key=lambda o: o[:2])

    # -- looking ----------------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, dict[str, Any]]:
        """Per search: what a person wants to see while it runs."""
        return {str(key): summarize(s.get_trials(deepcopy=False), self.rules) for key, s in self._studies.items()}

    def ended(self) -> list[tuple[Ticket, str, str]]:
        """Every trial that has ended, with its state as run folders have it and the reason."""
        return [
            (Ticket(key, t.number, dict(t.params)), STATES[t.state], str(t.user_attrs.get(REASON, "")))
            for key, study in self._studies.items()
            for t in study.get_trials(deepcopy=False)
            if t.state.is_finished()
        ]

    def winner(self, key: SearchKey) -> dict[str, Any] | None:
        """Parameters of the best complete trial, or None where no trial was completed."""
        return best_params(self._studies[key].get_trials(deepcopy=False))

    def _frozen(self, key: SearchKey, trial: optuna.Trial) -> FrozenTrial:
        return self._studies[key]._storage.get_trial(trial._trial_id)


def epochs_of(trial: FrozenTrial) -> int:
    """What an ended trial cost. A failed one costs at least the epoch it died in, or failing trials would never end."""
    reported = trial.last_step or 0
    return reported + (1 if trial.state == TrialState.FAIL else 0)


def best_params(trials: list[FrozenTrial]) -> dict[str, Any] | None:
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    # The earliest of equals, so that the answer does not depend on the storage's order.
    best = min(complete, key=lambda t: (-_value(t), t.number), default=None)
    return None if best is None else dict(best.params)


def incumbents(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The best complete trial so far, every time there was another one, as trials ended. The last one is the winner."""
    out: list[FrozenTrial] = []
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    for t in sorted(complete, key=lambda t: (t.datetime_complete or datetime.max, t.number)):
        # Of equals the earlier number leads, as it wins.
        if not out or (_value(t), -t.number) > (_value(out[-1]), -out[-1].number):
            out.append(t)
    return out


def summarize(trials: list[FrozenTrial], rules: Search) -> dict[str, Any]:
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return {
        "trials": len(trials),
        "running": sum(not t.state.is_finished() for t in trials),
        "complete": len(complete),
        "pruned": sum(t.state == TrialState.PRUNED for t in trials),
        "failed": sum(t.state == TrialState.FAIL for t in trials),
        "modelled": sum(bool(t.user_attrs.get(MODELLED)) for t in trials),
        "epochs": sum(epochs_of(t) if t.state.is_finished() else t.last_step or 0 for t in trials),
        "budget": rules.epochs_budget,
        "best": max((_value(t) for t in complete), default=None),
        "params": best_params(trials),
        "incumbents": [{"trial": t.number, "params": dict(t.params)} for t in incumbents(trials)],
        "failures": {t.number: t.user_attrs.get(REASON, "") for t in trials if t.state == TrialState.FAIL},
    }


def read_progress(database: StudyDatabase, plan: Plan) -> dict[str, dict[str, Any]]:
    """:meth:`Book.progress` from the outside: reads the storage, writes nothing. Empty where no search has begun."""
    return {str(key): summarize(trials, plan.study.search) for key, trials in _trials(database, plan).items()}


def read_trials(database: StudyDatabase, plan: Plan) -> list[dict[str, Any]]:
    """Every trial of every search from the outside, a row each: where it belongs, how it ended, what it tried and cost.

    ``value`` is the objective of a complete trial, the last one reported of a pruned one. ``started`` and ``ended`` are UTC:
    Optuna keeps the local time of the head node, which is taken to be this machine's time zone.

    Raises:
        DatabaseAway: it is a server's, and does not answer.
    """
    return [
        {
            "search": str(key),
            "dataset": key.dataset,
            "arm": key.arm,
            "replicate": key.replicate,
            "trial": t.number,
            "state": STATES.get(t.state, "unfinished"),
            "value": t.value if t.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            "epochs": epochs_of(t) if t.state.is_finished() else t.last_step or 0,
            "modelled": bool(t.user_attrs.get(MODELLED)),
            "reason": t.user_attrs.get(REASON, ""),
            "started": _utc(t.datetime_start),
            "ended": _utc(t.datetime_complete),
            "params": dict(t.params),
        }
        for key, trials in _trials(database, plan).items()
        for t in sorted(trials, key=lambda t: t.number)
    ]


def _trials(database: StudyDatabase, plan: Plan) -> dict[SearchKey, list[FrozenTrial]]:
    with database.reading() as backend:
        if backend is None:
            return {}
        begun = {s.study_name: s._study_id for s in backend.get_all_studies()}
        return {
            key: backend.get_all_trials(begun[str(key)], deepcopy=False) for key in plan.searches() if str(key) in begun
        }


def _utc(local: datetime | None) -> datetime | None:
    return None if local is None else local.astimezone(UTC)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None  # only asked of complete trials
    return trial.value
