"""A storage that remembers what it has written answers as the database behind it does, and asks it seldom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from marginlab.search import Book
from marginlab.sole_writer import SoleWriter
from tests.test_search import plan_of, work


def database(path: Path) -> RDBStorage:
    return RDBStorage(f"sqlite:///{path}")


def facts(trials: list[FrozenTrial]) -> list[Any]:
    return [{k: v for k, v in sorted(vars(t).items())} for t in trials]


def test_it_holds_what_the_database_holds(tmp_path: Path) -> None:
    behind = database(tmp_path / "a.db")
    storage = SoleWriter(behind)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    space = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution((None, "a", 2))}
    for i in range(6):
        trial = study.ask(space)
        trial.set_user_attr("token", f"t{i}")
        trial.report(0.1 * i, 1)
        if i % 3 < 2:
            state = (TrialState.COMPLETE, TrialState.FAIL)[i % 3]
            study.tell(trial.number, 0.5 * i if i % 3 == 0 else None, state=state)
    study_id = storage.get_study_id_from_name("s")
    assert facts(storage.get_all_trials(study_id)) == facts(behind.get_all_trials(study_id))
    complete = storage.get_all_trials(study_id, states=(TrialState.COMPLETE,))
    assert [t.number for t in complete] == [0, 3] and study.best_trial.number == 3
    assert facts(SoleWriter(behind).get_all_trials(study_id)) == facts(behind.get_all_trials(study_id))
    last = storage.get_all_trials(study_id)[-1]
    assert facts([SoleWriter(behind).get_trial(last._trial_id)]) == facts([last])
    assert [s.study_name for s in storage.get_all_studies()] == ["s"]
    storage.delete_study(study_id)
    assert storage.get_all_studies() == []


def test_a_search_takes_the_same_course_and_reads_less(tmp_path: Path, monkeypatch: Any) -> None:
    stories = {}
    reads = {"plain": 0, "sole": 0}
    name = ""
    inner = RDBStorage._get_trials

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        reads[name] += 1
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(RDBStorage, "_get_trials", counted)
    for name in reads:
        behind = database(tmp_path / f"{name}.db")
        work(Book(plan_of(), behind if name == "plain" else SoleWriter(behind)))
        stories[name] = [
            (s.study_name, t.number, t.state, t.value, t.params, t.intermediate_values, t.user_attrs)
            for s in behind.get_all_studies()
            for t in database(tmp_path / f"{name}.db").get_all_trials(s._study_id)
        ]
        reads[name] -= len(behind.get_all_studies())
    assert stories["plain"] == stories["sole"]
    assert reads["sole"] * 20 < reads["plain"]
