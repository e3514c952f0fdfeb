"""Trials that have been trained before: an equal one need not be trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.engine.report import Report
from tuner.errors import TunerError
from tuner.tracking.record import Record


class ReuseIndex:
    """The finished trials of a store, by the hash of their specification.

    The store is asked at the first call. One that cannot be reached knows no trial: nothing but
    time is lost.

    Args:
        record: the store.
        environment: device and versions; only trials of the same ones are equal to the last bit.
        data_fingerprint: of the data.
    """

    def __init__(
        self, record: Record, environment: Mapping[str, str], data_fingerprint: str
    ) -> None:
        self._record = record
        self._where = environment, data_fingerprint
        self._runs: dict[str, str] | None = None

    def __call__(self, spec_hash: str) -> Sequence[Report]:
        """All reports of a finished trial; none if there is no such trial."""
        try:
            if self._runs is None:
                self._runs = self._record.finished(*self._where)
            if spec_hash not in self._runs:
                return ()
            trial = self._record.trial(self._runs[spec_hash])
            return self._record.report_list(trial, self._record.spec(trial))
        except TunerError:
            return ()
