"""Why a worker does not deliver a report. Imports nothing: it travels through Ray to the clients.

TrialError      the trial cannot be trained, by no worker: it fails, and nothing else does
WorkerError     the worker has come to its end, by no fault of the trial: it goes on on the next one
"""

from __future__ import annotations


class TrialError(RuntimeError):
    """A trial cannot be trained; one sentence says why."""


class WorkerError(RuntimeError):
    """A worker's engine broke; the worker ends, and Ray starts it again."""
