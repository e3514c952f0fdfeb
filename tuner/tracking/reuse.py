"""Looks up finished trials by specification hash, to reuse their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.engine.report import Report
from tuner.errors import TunerError
from tuner.tracking.record import Record


class ReuseIndex:
    """Finished trials of a store by the hash of their specification.

    The store is read at the first call. If it cannot be reached, no trial is found: the search
    then trains all trials itself.

    Args:
        record: the store.
        environment: device and versions; only trials of an equal environment are bit-equal.
        data_fingerprint: of the data.
    """

    def __init__(
        self, record: Record, environment: Mapping[str, str], data_fingerprint: str
    ) -> None:
        self._record = record
        self._conditions = environment, data_fingerprint
        self._runs: dict[str, str] | None = None  # specification hash → run

    def __call__(self, spec_hash: str) -> Sequence[Report]:
        """Return all reports of a finished trial; none if there is no such trial."""
        try:
            if self._runs is None:
                self._runs = self._record.finished(*self._conditions)
            if spec_hash not in self._runs:
                return ()
            trial = self._record.trial(self._runs[spec_hash])
            return self._record.report_list(trial, self._record.spec(trial))
        except TunerError:
            return ()
