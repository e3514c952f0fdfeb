"""Commands about the data of a space."""

from __future__ import annotations

import argparse

from tuner.commands.output import consoles, home_of, print_json, space_of


def prepare(options: argparse.Namespace) -> int:
    """Prepare the data of a space."""
    from tuner.data import describe, prepare_corpus
    from tuner.progress import shown

    space, home = space_of(options), home_of(options)
    results, progress = consoles(options)
    with shown(progress) as on_progress:
        corpus = prepare_corpus(space, home, options.processes, on_progress)
    print_json(options, describe(results, space, corpus))
    return 0


def info(options: argparse.Namespace) -> int:
    """What a prepared corpus holds."""
    from tuner.data import cached_corpus, describe
    from tuner.home import Home

    space = space_of(options)
    results, _ = consoles(options)
    corpus = cached_corpus(space, options.space, Home.of(options.home))
    print_json(options, describe(results, space, corpus))
    return 0


def sample(options: argparse.Namespace) -> int:
    """Show the first training batch."""
    from tuner.data import prepare_corpus, print_sample
    from tuner.progress import shown

    space, home = space_of(options), home_of(options)
    results, progress = consoles(options)
    with shown(progress) as on_progress:
        corpus = prepare_corpus(space, home, None, on_progress)
    print_json(options, print_sample(results, space, corpus, options.sequences, options.seed))
    return 0
