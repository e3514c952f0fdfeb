"""Looks up finished trials by specification hash, to reuse their reports."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from model.engine.report import Report
from tuner.errors import StoreError
from tuner.tracking.run_ids import NotReadable, has_finished
from tuner.tracking.tags import ENVIRONMENT
from tuner.trained.recorded_trials import RecordedTrials

_REST = 10.0  # times as long as a request that failed: a search must not wait for a store
_FRESH_SECONDS = 10.0  # before the store is asked again whether it has other searches


class FinishedTrials:
    """Finished trials of a store by the hash of their specification.

    The store knows their runs, and the journals of their searches have the reports. A store that
    cannot be reached, or a damaged journal, has no such trial: the search trains it. Then the store
    is not asked for a while. A file says within a millisecond that it has no such trial, before
    MLflow is loaded. A server without other searches is asked rarely: each request takes 10 ms of
    the time in which a search decides.

    Args:
        trials: trials of the store.
        environment: device and versions; only trials of an equal environment are bit-equal.
        search: name of the search that asks; its own trials are known without the store.
    """

    def __init__(
        self, trials: RecordedTrials, environment: Mapping[str, str], search: str = ""
    ) -> None:
        self._trials, self._search = trials, search
        self._experiments: list[str] | None = None  # to look into; None for all
        self._has_others = False  # as a server said
        self._asks_anew_at = -math.inf
        self._environment = {name: environment.get(name, "") for name in ENVIRONMENT}
        self._rests_until = -math.inf

    def __call__(self, spec_hash: str) -> Sequence[Report]:
        """Return all reports of the newest finished trial; none if there is no such trial.

        The reports name no checkpoint, which is the other search's.
        """
        asked = time.monotonic()
        if asked < self._rests_until:
            return ()
        try:
            if not self._may_have(spec_hash, asked):
                return ()
            equal = self._trials.finished(spec_hash, self._environment, self._experiments)
            trial = next(equal, None)
            reports = trial.trial.reports if trial else ()
            return [replace(report, checkpoint=None, problem=None) for report in reports]
        except StoreError:
            now = time.monotonic()
            self._rests_until = now + _REST * (now - asked)
        return ()

    def _may_have(self, spec_hash: str, now: float) -> bool:
        """Return False if the store has no finished trial of a specification by another search."""
        try:
            return has_finished(self._trials.home.tracking_uri, spec_hash, self._search)
        except NotReadable:
            pass
        if now >= self._asks_anew_at:
            record = self._trials.record
            self._experiments = record.experiments()
            self._has_others = record.has_other_searches(self._search, self._experiments)
            self._asks_anew_at = time.monotonic() + _FRESH_SECONDS
        return self._has_others
