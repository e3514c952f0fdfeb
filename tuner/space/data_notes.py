"""Remarks on prepared data, for the user: how it was split, and files that may be no text."""

from __future__ import annotations

import itertools
import math

from model.corpus.corpus import Corpus
from model.sources.registry import text_files
from model.sources.streams import has_nul
from model.spec.data import DataConfig
from tuner.formatting import listed

# Odds of the validation part, relative to those asked for, from which on the split is far off.
_FAR = 2.0
_MOST_INSPECTED = 1000  # files
_MOST_NAMED = 3


def data_notes(corpus: Corpus) -> list[str]:
    """Return what a user should know about prepared data, one sentence each."""
    return [*_split_notes(corpus), *_binary_notes(corpus.data)]


def _split_notes(corpus: Corpus) -> list[str]:
    asked, share = corpus.data.validation_fraction, corpus.validation_share
    if corpus.split_by == "position":
        one = "" if corpus.data.split_by else "The text is one document, so it is split by position"
        return [
            f"{one or 'The text is split by position'}: the last {_percent(share)} of it is held "
            f"out for validation."
        ]
    if 1 / _FAR <= _odds(share) / _odds(asked) <= _FAR:
        return []
    noun = "pair" if corpus.has_pairs else "document"
    position = "" if corpus.has_pairs else ", or set data.split_by: position for the exact share"
    return [
        f"The split is by {noun}, and {_percent(share)} of the text is held out instead of "
        f"{_percent(asked)} (data.validation_fraction); give more {noun}s{position}."
    ]


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _binary_notes(data: DataConfig) -> list[str]:
    files = itertools.islice(text_files(data), _MOST_INSPECTED)
    names = [file.name for file in files if has_nul(file.path)]
    if not names:
        return []
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return [
        f"NUL bytes, which no text has, are in {listed([*names[:_MOST_NAMED], *more], 'and')}; "
        f"leave the file out, or convert it to UTF-8 if it is UTF-16 (iconv)."
    ]
