"""Copies a search for Optuna's own dashboard: `optuna-dashboard sqlite:///runs/optuna.db`.

The search never reads this copy. A separate thread writes it, because writing a trial takes 200 ms
on a slow disk. Most of the time the thread rests: a trial takes 16 ms of Python, too, in which the
driver decides nothing. It retries while the database is locked or unreachable; at the end a message
says how many trials are missing from it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import StoreError
from tuner.formatting import counted, shown
from tuner.results.optuna_export import _NUMBER, _directions, _name_metrics
from tuner.secrets import masked
from tuner.space.objective import Objective

_VARIABLE = "TUNER_OPTUNA_STORAGE"
_FILE, _SQLITE = "optuna.db", "sqlite:///"
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 30.0
_REST = 4.0  # times as long as a write took, until the next one


def study_url(home: Path) -> str | None:
    """Return the URL of the database of studies; None if it is switched off.

    TUNER_OPTUNA_STORAGE sets the URL, or `off`. The default is a SQLite file in the home.
    """
    url = os.environ.get(_VARIABLE) or f"sqlite:///{home}/{_FILE}"
    return None if url == "off" else url


def study_names(home: Path) -> list[str]:
    """Return the names of the studies in the database; none if there is no database or it fails."""
    url = _existing_url(home)
    try:
        return [] if url is None else optuna.get_all_study_names(url)
    except Exception:  # noqa: BLE001 - a copy must not keep a search from being deleted
        return []


def delete_study(home: Path, name: str) -> None:
    """Delete a study from the database, if it is there.

    Raises:
        StoreError: if the database cannot be changed.
    """
    url = _existing_url(home)
    if url is None:
        return
    try:
        optuna.delete_study(study_name=name, storage=url)
    except KeyError:
        return
    except Exception as error:
        raise StoreError(f"cannot delete the study {name} of Optuna: {_reason(error)}") from error


def _existing_url(home: Path) -> str | None:
    """Return the URL of the database; None if it is switched off, or a file that does not exist."""
    url = study_url(home)
    is_missing = url == f"sqlite:///{home}/{_FILE}" and not (home / _FILE).is_file()
    return None if is_missing else url


class StudyStore:
    """Writes ended trials into an Optuna study, in the background.

    A trial that is in the study already, from before a resume, is not written again. If it has
    more reports now (it was paused), the complete study is replaced, because Optuna cannot change
    a finished trial. Optuna numbers trials in the order of writing; the user attribute `trial` is
    the number in the search.

    Args:
        url: URL of the database, for SQLAlchemy.
        name: name of the study.
        objectives: objectives of the search.
    """

    def __init__(self, url: str, name: str, objectives: Sequence[Objective]) -> None:
        self._url = url
        self._name = name
        self._objectives = objectives
        # Shared with the thread, under the lock of the condition.
        self._changed = threading.Condition()
        self._waiting: dict[int, FrozenTrial] = {}
        self._is_closed = False
        self._problem = ""
        # Used by the thread only.
        self._study: optuna.Study | None = None
        self._written: dict[int, FrozenTrial] = {}
        self._thread = threading.Thread(target=self._run, name="study store", daemon=True)
        self._thread.start()

    def add(self, number: int, trial: FrozenTrial) -> None:
        """Write an ended trial later; return at once. A later call for its number replaces it."""
        with self._changed:
            self._waiting[number] = trial
            self._changed.notify()

    def close(self, timeout: float = 10.0) -> str | None:
        """Write the waiting trials; return a message if some could not be written.

        Args:
            timeout: longest wait in seconds.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            missing = len(self._waiting)
        if not missing:
            return None
        reason = self._problem or f"it took more than {timeout:g} s"
        return masked(
            f"Optuna's study {self._name} in {self._url} lacks {counted(missing, 'trial')}: "
            f"{reason}; resuming the search writes them"
        )

    # the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    return
                number, trial = next(iter(self._waiting.items()))
                is_last_try = self._is_closed
            begun = time.monotonic()
            try:
                self._write(number, trial)
            except Exception as error:  # noqa: BLE001 - a copy must not harm the search
                self._problem, self._study = _reason(error), None
                if is_last_try:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, retry_seconds)
                retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
                continue
            retry_seconds = _FIRST_RETRY_SECONDS
            with self._changed:
                # `add` may have replaced the trial while it was being written.
                if self._waiting[number] is trial:
                    del self._waiting[number]
                rest = _REST * (time.monotonic() - begun)
                self._changed.wait_for(lambda: self._is_closed, rest)

    def _write(self, number: int, trial: FrozenTrial) -> None:
        study = self._study or self._open()
        trial.set_user_attr(_NUMBER, number)
        old = self._written.get(number)
        if old is None:
            study.add_trial(trial)
        elif _fingerprint(old) != _fingerprint(trial):
            trials = {**self._written, number: trial}
            optuna.delete_study(study_name=self._name, storage=self._url)
            study = self._open()
            for _, other in sorted(trials.items()):
                study.add_trial(other)
            self._written = trials
        self._written[number] = trial

    def _open(self) -> optuna.Study:
        """Open the study, or create it, and read its trials."""
        if self._url.startswith(_SQLITE) and self._url.endswith(f"/{_FILE}"):
            # A new file has the permissions of the umask, and not those that SQLite chooses. If it
            # cannot be made, SQLite says why.
            with contextlib.suppress(OSError):
                Path(self._url.removeprefix(_SQLITE)).touch()
        study = optuna.create_study(
            storage=self._url,
            study_name=self._name,
            sampler=optuna.samplers.RandomSampler(),
            directions=_directions(self._objectives),
            load_if_exists=True,
        )
        _name_metrics(study, self._objectives)
        trials = study.get_trials(deepcopy=False)
        self._written = {t.user_attrs[_NUMBER]: t for t in trials if _NUMBER in t.user_attrs}
        self._study = study
        return study


def _fingerprint(trial: FrozenTrial) -> tuple[TrialState, int]:
    """Return state and last report, which change when a paused trial continues."""
    return trial.state, max(trial.intermediate_values, default=0)


def _reason(error: Exception) -> str:
    """Return the innermost cause in one line: Optuna and SQLAlchemy wrap the original error."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = str(error).strip().partition("\n")[0]
    return shown(line or type(error).__name__)
