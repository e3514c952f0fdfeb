"""Errors of the trainer that the user can fix.

    ModelError
    ├── CorpusError         the data cannot be used
    ├── CheckpointError     a file is no checkpoint, is damaged, or does not fit
    └── ExportError         a format cannot express a model

This module imports nothing: the command line catches these by type without loading torch.
"""

from __future__ import annotations


class ModelError(ValueError):
    """An error of the trainer that the user can fix; the message is one sentence."""


class CorpusError(ModelError):
    """The data cannot be used; one sentence says what, where and what to do."""


class CheckpointError(ModelError):
    """A file is not a checkpoint, is damaged, or does not fit; one sentence says which."""


class ExportError(ModelError):
    """A format cannot express a model, or its files cannot be written; one sentence says why."""
