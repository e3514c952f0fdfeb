"""Storage of the trials that Optuna's samplers read.

Optuna's in-memory storage cannot change or remove trials. This storage holds the trials that the
sampler may know now, and the trial that is being drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

_STUDY = 0  # id of the only study
_LONG_AGO = datetime(2000, 1, 1)  # Optuna requires a time, and no sampler reads it


def make_trial(
    number: int,
    state: TrialState,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    **parts: Any,
) -> FrozenTrial:
    """Return a trial of the table; `parts` are other fields of Optuna's, empty by default."""
    empty: dict[str, Any] = {
        "value": None, "intermediate_values": {}, "user_attrs": {}, "system_attrs": {}
    }  # fmt: skip
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        params=dict(params),
        distributions=dict(distributions),
        datetime_start=_LONG_AGO,
        datetime_complete=_LONG_AGO if state.is_finished() else None,
        **{**empty, **parts},
    )


class TrialTable(BaseStorage):
    """Trials of one study, by number; Optuna's interface to them.

    Attributes:
        trials: number → trial; callers may change it. The id of a trial is its number.
        next_number: number of the trial that `create_new_trial` creates.
        visible: trials that a sampler sees, by number; None for all.
    """

    def __init__(self) -> None:
        self.trials: dict[int, FrozenTrial] = {}
        self.next_number = 0
        self.visible: list[FrozenTrial] | None = None
        self._directions: list[StudyDirection] = []
        self._name = ""
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}

    # the study ---------------------------------------------------------------------------------

    @override
    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        self._directions, self._name = list(directions), study_name or "search"
        return _STUDY

    @override
    def delete_study(self, study_id: int) -> None:
        self.__init__()  # type: ignore[misc]

    @override
    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._user_attrs[key] = value

    @override
    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._system_attrs[key] = value  # parents of a generation of NSGA-II

    @override
    def get_study_id_from_name(self, study_name: str) -> int:
        return _STUDY

    @override
    def get_study_name_from_id(self, study_id: int) -> str:
        return self._name

    @override
    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    @override
    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._user_attrs

    @override
    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._system_attrs

    @override
    def get_all_studies(self) -> list[Any]:
        raise NotImplementedError  # never called: the study is not looked up

    # the trials --------------------------------------------------------------------------------

    @override
    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        assert template_trial is None  # trials are put into the table itself
        number = self.next_number
        self.trials[number] = make_trial(number, TrialState.RUNNING, {}, {})
        return number

    @override
    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        trial = self.trials[trial_id]
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    @override
    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        raise NotImplementedError  # never called: trials are written to the table directly

    @override
    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        raise NotImplementedError

    @override
    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.trials[trial_id].user_attrs[key] = value

    @override
    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.trials[trial_id].system_attrs[key] = value  # state of CMA-ES and NSGA-II

    @override
    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.trials[trial_id]

    @override
    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,):
            return []
        seen = self.visible
        if seen is None:
            seen = [trial for _, trial in sorted(self.trials.items())]
        chosen = [trial for trial in seen if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen
