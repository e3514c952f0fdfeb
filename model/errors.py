"""Errors of the trainer that the user can fix.

    ModelError
    ├── CorpusError         the data cannot be used
    ├── CheckpointError     a file is not a checkpoint, is damaged, or does not fit
    ├── ExportError         a format cannot express a model
    └── CompileError        ticks cannot be compiled
    ForeignTokenizerError   a tokenizer.json has what ours lacks

This module imports nothing, so that the command line can catch these types without loading torch.
"""

from __future__ import annotations

_LONGEST = 1500  # characters of a message


class ModelError(ValueError):
    """An error of the trainer that the user can fix; the message is one sentence."""


class CorpusError(ModelError):
    """The data cannot be used; the message says what is wrong, where, and how to fix it.

    The message may quote data of others: it is one line of printable characters.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
        super().__init__(line)


class CheckpointError(ModelError):
    """A file is not a checkpoint, is damaged, or does not fit; the message says which."""


class ExportError(ModelError):
    """A format cannot express a model, or its files cannot be written; the message says why."""


class ForeignTokenizerError(ValueError):
    """A tokenizer has a feature that ours lacks; the message names the file and the feature."""


class CompileError(ModelError):
    """Ticks cannot be compiled on this machine; the message says why."""
