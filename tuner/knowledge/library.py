"""The evidence of all sources that an answer may use: searches of a home, the atlas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuner.errors import JournalError, TunerError
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.journal.journal import read_entries, read_search
from tuner.knowledge.atlas import read_atlas
from tuner.knowledge.evidence import Evidence, evidence_of, obstacle, text_of
from tuner.knowledge.tables import read_table
from tuner.space.proposals import SourceUsed, is_table
from tuner.texts.formatting import counted, did_you_mean, listed

ATLAS = "atlas"
_FEWEST = 3  # trials of a search that tell something


@dataclass(frozen=True)
class Library:
    """Evidence and where it comes from.

    Attributes:
        parts: source and its trials, the searches first.
        left_out: what was not used, one sentence each.
    """

    parts: tuple[tuple[SourceUsed, Evidence], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[SourceUsed, ...]:
        """What was used."""
        return tuple(source for source, _ in self.parts)

    @cached_property
    def evidence(self) -> Evidence:
        """The trials of all sources."""
        return Evidence.joined([evidence_of([]), *(part for _, part in self.parts)])


def collect(home: Home, names: Sequence[str] | None = None, *, besides: str = "") -> Library:
    """Collect the evidence of a home.

    Args:
        home: folder of the searches; need not exist.
        names: searches to use, `atlas`, paths and URLs of tables; None for all searches and the
            atlas.
        besides: a search that is not used: the one that asks.

    Raises:
        TunerError: if a named search does not exist or has no evidence, or a table is wrong.
    """
    found = {path.name: path for path in home.searches() if path.name != besides}
    places = [name for name in names or () if is_table(name)]
    names = None if names is None else [name for name in names if name not in places]
    for name in names or ():
        if name not in found and name != ATLAS:
            near = did_you_mean(name, (*found, ATLAS))
            raise TunerError(f"there is no search {name} to learn from in {home.root}{near}")
    parts, left_out = [], []
    for name in found if names is None else [name for name in names if name != ATLAS]:
        part = _of_search(home, name)
        if isinstance(part, tuple):
            parts.append(part)
        elif names is not None:
            raise TunerError(f"{part}; name another search, or 'search.learn_from: auto'")
        else:
            left_out.append(part)
    for place in places:
        table = read_table(place)
        parts.append((table.source, table.evidence))
        left_out += table.left_out
    if names is None or ATLAS in names:
        atlas = read_atlas()
        parts.append((atlas.source, atlas.evidence))
    return Library(tuple(parts), tuple(left_out))


def text_named(name: str, home: Home) -> str:
    """Return a text with its tokenizer, as evidence names it.

    Args:
        name: name of a search, which has the text, or of a text of the atlas.
        home: home of the searches.

    Raises:
        TunerError: if there is no such search or text.
    """
    shipped: Mapping[str, str] = read_atlas().card["fingerprints"]
    names = [path.name for path in home.searches()]
    search = read_search(home.search(name)) if name in names else None
    if search is not None:
        return text_of(search.facts.data_fingerprint, search.facts.tokenizer_fingerprint)
    if name not in shipped:
        near = did_you_mean(name, (*names, *shipped)) or f"; the atlas has {listed(shipped, 'and')}"
        raise TunerError(f"there is no search and no text {name}{near}")
    return shipped[name]


def _of_search(home: Home, name: str) -> tuple[SourceUsed, Evidence] | str:
    """Return the evidence of a search, or why it has none."""
    try:
        entries = read_entries(home.search(name))
        search = Search.of(entry.event for entry in entries)
    except (JournalError, OSError) as error:
        return f"{name} was left out: {error}"
    if search is None:
        return f"{name} was left out: it has not begun"
    return of_search(name, entries[-1].digest, search)


def of_search(name: str, digest: str, search: Search) -> tuple[SourceUsed, Evidence] | str:
    """Return the finished and diverged trials of a search, or why it has none."""
    trials = [
        (trial, obstacle(trial.spec))
        for trial in search.board.trials.values()
        if trial.has_finished or trial.has_diverged
    ]
    usable = [
        (trial.spec, trial.last.val_loss if trial.has_finished and trial.last else float("inf"))
        for trial, reason in trials
        if reason is None
    ]
    if len(usable) >= _FEWEST:
        return SourceUsed(name, "search", digest, len(usable)), evidence_of(usable)
    reasons = Counter(reason for _, reason in trials if reason)
    if reasons:
        (reason, count), *_ = reasons.most_common(1)
        return f"{name} was left out: of {counted(count, 'trial')}, {reason}"
    return f"{name} was left out: it has {counted(len(usable), 'finished trial')}"
