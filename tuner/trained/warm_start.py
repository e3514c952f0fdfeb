"""Resolves `init_from:`, the source from which trials start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.space.conflicts import context_lengths
from tuner.space.data_facts import DataFacts

if TYPE_CHECKING:
    from model.corpus.corpus import Corpus
    from tuner.home.home import Home
    from tuner.space.space import SearchSpace
    from tuner.trained.find_start import WarmStart


def warm_started(space: SearchSpace, home: Home) -> tuple[SearchSpace, WarmStart | None]:
    """Find the source of a space; return the space with the source's tokenizer, and the source.

    A space without `init_from:` is returned unchanged, with None.

    Raises:
        TunerError: if the source cannot be found or does not fit the space.
        StoreError: if the tracking store cannot be used.
    """
    if space.init_from is None:
        return space, None
    from tuner.trained.find_start import find_start  # loads torch, which most commands never need

    return find_start(space, space.init_from, home)


def facts_of(space: SearchSpace, corpus: Corpus, start: WarmStart | None) -> DataFacts:
    """Return the facts of a corpus and a source, as far as these need no tensors.

    Raises:
        TunerError: if the source was trained with another tokenizer.
    """
    if start is None:
        return DataFacts.of(corpus, context_lengths(space, corpus.vocab_size))
    start.check_tokenizer(corpus.tokenizer_fingerprint)
    ids = max(corpus.vocab_size, start.architecture.vocab_size)
    return start.with_ids(DataFacts.of(corpus, context_lengths(space, ids)))
