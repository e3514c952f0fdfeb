"""A copy of a search for Optuna's own dashboard: `optuna-dashboard sqlite:///runs/optuna.db`.

The search never reads it. It is written by a thread of its own, because a trial takes 200 ms on a
slow disk; a database that is locked or away is tried again, and in the end one sentence says what
it lacks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.formatting import shown
from tuner.results.optuna_export import _NUMBER, _directions, _name_metrics
from tuner.space.objective import Objective

if TYPE_CHECKING:
    pass

_VARIABLE = "TUNER_OPTUNA_STORAGE"
_FILE = "optuna.db"
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between two tries


def study_url(home: Path) -> str | None:
    """Where studies are written: TUNER_OPTUNA_STORAGE, else SQLite in the home; `off`: nowhere."""
    url = os.environ.get(_VARIABLE) or f"sqlite:///{home}/{_FILE}"
    return None if url == "off" else url


class StudyStore:
    """Writes ended trials into a study of Optuna, in the background.

    A trial that is there already, from before a resume, is not written again; if it has gone on
    since (it was parked), the study is written anew. Numbers of Optuna's are the order of writing;
    the search's own are the user attribute `trial`.

    Args:
        url: of the database, as SQLAlchemy has it.
        name: of the study.
        objectives: what trials are compared by.
    """

    def __init__(self, url: str, name: str, objectives: Sequence[Objective]) -> None:
        self._url = url
        self._name = name
        self._objectives = objectives
        self._waiting: dict[int, FrozenTrial] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._problem = ""
        self._study: optuna.Study | None = None
        self._there: dict[int, FrozenTrial] = {}
        self._thread = threading.Thread(target=self._run, name="study store", daemon=True)
        self._thread.start()

    def add(self, number: int, trial: FrozenTrial) -> None:
        """An ended trial; returns at once. Added again, the later one counts."""
        with self._changed:
            self._waiting[number] = trial
            self._changed.notify()

    def close(self, timeout: float = 10.0) -> str | None:
        """Write what is waiting; a sentence about what could not be written, if anything."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            lacking = len(self._waiting)
        if not lacking:
            return None
        trials = "1 trial" if lacking == 1 else f"{lacking} trials"
        reason = self._problem or f"it took more than {timeout:g} s"
        where = self._url.rpartition("@")[2]  # without a password
        return (
            f"Optuna's study {self._name} in {where} lacks {trials}: {reason}; resuming the search "
            f"writes them"
        )

    # the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        wait = _FIRST_WAIT
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    return
                number, trial = next(iter(self._waiting.items()))
                is_last_try = self._is_closed
            try:
                self._write(number, trial)
            except Exception as error:  # noqa: BLE001 - a copy must not harm the search
                self._problem, self._study = _reason(error), None
                if is_last_try:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            wait = _FIRST_WAIT
            with self._changed:
                if self._waiting[number] is trial:  # else there is a later one by now
                    del self._waiting[number]

    def _write(self, number: int, trial: FrozenTrial) -> None:
        study = self._study or self._open()
        trial.set_user_attr(_NUMBER, number)
        old = self._there.get(number)
        if old is None:
            study.add_trial(trial)
        elif _fingerprint(old) != _fingerprint(trial):
            trials = {**self._there, number: trial}
            optuna.delete_study(study_name=self._name, storage=self._url)
            study = self._open()
            for _, other in sorted(trials.items()):
                study.add_trial(other)
            self._there = trials
        self._there[number] = trial

    def _open(self) -> optuna.Study:
        """The study, made if need be, and what is in it."""
        study = optuna.create_study(
            storage=self._url,
            study_name=self._name,
            sampler=optuna.samplers.RandomSampler(),
            directions=_directions(self._objectives),
            load_if_exists=True,
        )
        _name_metrics(study, self._objectives)
        trials = study.get_trials(deepcopy=False)
        self._there = {t.user_attrs[_NUMBER]: t for t in trials if _NUMBER in t.user_attrs}
        self._study = study
        return study


def _fingerprint(trial: FrozenTrial) -> tuple[TrialState, int]:
    return trial.state, max(trial.intermediate_values, default=0)


def _reason(error: Exception) -> str:
    """The innermost cause, in one line: Optuna wraps what SQLAlchemy wraps."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = str(error).strip().partition("\n")[0]
    return shown(line or type(error).__name__)
