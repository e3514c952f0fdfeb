"""Where Optuna's samplers look for the trials of a search.

Optuna's own storage in memory only grows: what was told can be neither changed nor forgotten. This
one holds just what the sampler may know now, and the trial that is being drawn.
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

_STUDY = 0  # the id of the only one
_LONG_AGO = datetime(2000, 1, 1)  # no sampler reads it, and Optuna wants one


def make_trial(
    number: int,
    state: TrialState,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    **parts: Any,
) -> FrozenTrial:
    """A trial of the table; `parts` are more of Optuna's fields, empty if they are left out."""
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
    """The trials of one study, by their numbers.

    Attributes:
        trials: number → trial. May be changed as one likes; a trial's id is its number.
        next_number: of the trial that is asked for next.
        visible: those that a sampler sees, by number, in the place of all.
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

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """The only one."""
        self._directions, self._name = list(directions), study_name or "search"
        return _STUDY

    def delete_study(self, study_id: int) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set one."""
        self._user_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set one: where NSGA-II keeps the parents of a generation."""
        self._system_attrs[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        """That of the only one."""
        return _STUDY

    def get_study_name_from_id(self, study_id: int) -> str:
        """That of the only one."""
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As it was created."""
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """All."""
        return self._user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """All."""
        return self._system_attrs

    def get_all_studies(self) -> list[Any]:
        """Nobody asks: the study is never looked for."""
        raise NotImplementedError

    # the trials --------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """The one that is asked for."""
        assert template_trial is None  # trials are put into the table itself
        number = self.next_number
        self.trials[number] = make_trial(number, TrialState.RUNNING, {}, {})
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter of the trial that is drawn."""
        trial = self.trials[trial_id]
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Nobody asks: trials are told by putting them into the table."""
        raise NotImplementedError

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Nobody asks, likewise."""
        raise NotImplementedError

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set one."""
        self.trials[trial_id].user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set one: where CMA-ES and NSGA-II keep their state."""
        self.trials[trial_id].system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial."""
        return self.trials[trial_id]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Those in some states, by number."""
        if states == (TrialState.WAITING,):
            return []
        seen = self.visible
        if seen is None:
            seen = [trial for _, trial in sorted(self.trials.items())]
        chosen = [trial for trial in seen if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen
