"""A storage of Optuna's that is read once: whoever is its only writer knows what it holds.

Optuna asks its storage for all trials some ten times between two reports, and a database answers in milliseconds each time. What is
written goes to the database first, and is remembered once it is there. After a write that was refused nobody knows whether it
arrived: begin with another one on the same database.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState


class SoleWriter(BaseStorage):
    """In front of a storage that nobody else writes to."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self._trials: dict[int, list[FrozenTrial]] = {}  # by study, by number
        self._place: dict[int, tuple[int, int]] = {}  # of a trial: study and number

    # -- trials: remembered -----------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        known = self._of(study_id)
        trial_id = self.storage.create_new_trial(study_id, template_trial)
        self._place[trial_id] = study_id, len(known)
        known.append(self.storage.get_trial(trial_id))
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self.storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        trial = self._changed(trial_id)
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        done = self.storage.set_trial_state_values(trial_id, state, values)
        study_id, number = self._at(trial_id)
        self._trials[study_id][number] = self.storage.get_trial(trial_id)  # it has set times, too
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self.storage.set_trial_intermediate_value(trial_id, step, intermediate_value)
        trial = self._changed(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.storage.set_trial_user_attr(trial_id, key, value)
        trial = self._changed(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.storage.set_trial_system_attr(trial_id, key, value)
        trial = self._changed(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._at(trial_id)
        return self._trials[study_id][number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self._of(study_id)
        found = list(trials) if states is None else [t for t in trials if t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _of(self, study_id: int) -> list[FrozenTrial]:
        if study_id not in self._trials:
            self._trials[study_id] = sorted(self.storage.get_all_trials(study_id), key=lambda t: t.number)
            self._place |= {t._trial_id: (study_id, i) for i, t in enumerate(self._trials[study_id])}
        return self._trials[study_id]

    def _at(self, trial_id: int) -> tuple[int, int]:
        if trial_id not in self._place:
            for study in self.storage.get_all_studies():
                self._of(study._study_id)
        return self._place[trial_id]

    def _changed(self, trial_id: int) -> FrozenTrial:
        """A copy in place of the trial: those given out stay as they were."""
        study_id, number = self._at(trial_id)
        trial = copy.copy(self._trials[study_id][number])
        self._trials[study_id][number] = trial
        return trial

    # -- studies: asked for seldom ----------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.storage.delete_study(study_id)
        self._place = {i: place for i, place in self._place.items() if place[0] != study_id}
        self._trials.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.storage.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.storage.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.storage.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.storage.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self.storage.get_all_studies()
