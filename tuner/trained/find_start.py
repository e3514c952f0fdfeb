"""Where the trials of a search start: found in the record or in a file, and checked.

What they start with is kept twice: in the home, for the workers to read, and with the search's
record, so that a replay needs neither the source's record nor its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.checkpoints.warm_start import (
    WarmStartSource,
    first_shape_mismatch,
    shape_text,
    start_path,
    write_start,
)
from model.errors import CheckpointError
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.data import TokenizerConfig
from model.spec.trial import InitFrom
from model.tokenizer.load import load_tokenizer
from tuner.errors import RecordError, StoreError, TunerError
from tuner.formatting import listed, shown
from tuner.home import Home
from tuner.space.settings import InitFromConfig
from tuner.space.space import SearchSpace
from tuner.tracking.artifacts import _recorded, kept_state, recorded_tokenizer
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import TOKENIZER_FILE

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN_LETTERS = 8  # of a run id
_SHOWN_SEARCHES = 5


@dataclass(frozen=True)
class WarmStart:
    """Where the trials of a search start.

    Attributes:
        words: the source as the user reads it.
        source: its checkpoint.
        init_from: what a specification says of it.
        tensors: what the trials start with.
        tokenizer: the one that is recorded with the source, if it is recorded.
    """

    words: str
    source: WarmStartSource
    init_from: InitFrom
    tensors: dict[str, Tensor]
    tokenizer: TokenizerConfig | None

    def keep(self, home: Home) -> Path:
        """Put what the trials start with where workers find it; the file.

        Raises:
            StoreError: if it cannot be written.
        """
        path = start_path(home.starts, self.init_from)
        try:
            write_start(home.starts, self.init_from, self.tensors)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror}; free some space or choose another --home"
            ) from error
        return path

    def check_tokenizer(self, fingerprint: str) -> None:
        """Whether token ids mean what they meant to the source.

        Raises:
            TunerError: if they do not.
        """
        wanted = self.source.spec.tokenizer_fingerprint
        if fingerprint == wanted:
            return
        way_out = (
            "leave tokenizer: out, and the source's own is used"
            if self.tokenizer is not None
            else f"give tokenizer: {{file: …}}, the {TOKENIZER_FILE} recorded with the search that "
            f"wrote it"
        )
        raise TunerError(
            f"init_from: {self.words} was trained with another tokenizer (fingerprint "
            f"{wanted[:12]}… instead of {fingerprint[:12]}…); {way_out}"
        )

    def differing(self, architecture: Architecture) -> dict[str, tuple[object, object]]:
        """Entries of `model:` that are not the source's: name → value here and there."""
        there = self.source.spec.architecture
        return {
            name: (getattr(architecture, name), getattr(there, name))
            for name in Architecture.model_fields
            if name not in {"vocab_size", "end_of_text"}
            and getattr(architecture, name) != getattr(there, name)
        }


def find_start(
    space: SearchSpace, config: InitFromConfig, home: Home
) -> tuple[SearchSpace, WarmStart]:
    """What a space starts from, and the space with its tokenizer; see `init_from.warm_started`."""
    try:
        start = _find(config, home)
    except CheckpointError as error:
        raise TunerError(f"init_from: {error}") from error
    _check_shapes(space, start)
    _check_optimizer(space, start)
    if "tokenizer" not in space.model_fields_set:
        if start.tokenizer is None:
            raise TunerError(
                f"init_from: {start.words} does not hold its tokenizer; give tokenizer: "
                f"{{file: …}}, the {TOKENIZER_FILE} recorded with the search that wrote it"
            )
        space = space.model_copy(update={"tokenizer": start.tokenizer})
    given = load_tokenizer(space.tokenizer)
    if given is not None:
        start.check_tokenizer(given.fingerprint)
    return space, start


# find --------------------------------------------------------------------------------------


def _find(config: InitFromConfig, home: Home) -> WarmStart:
    if config.checkpoint is not None:
        return _start(
            config, config.checkpoint, WarmStartSource.read(Path(config.checkpoint)), None
        )
    if home.is_local and not home.has_store:  # opening it would make one
        raise _no_source(config, home, [])
    record = Record(home.tracking_uri)
    if config.search is not None:
        search = _newest(config, config.search, record, home)
        trial = record.best(search)
    else:
        assert config.run is not None
        trial = record.trial(config.run)
        search = record.search(trial.search)
    run = trial.run_id[:_SHOWN_LETTERS]
    words = f"trial {trial.number} of {trial.search} (run {run})"
    with TemporaryDirectory() as folder:
        path = kept_state(record, trial, folder)
        if path is None:
            best = search.best_run
            way_out = f"; use run {best[:_SHOWN_LETTERS]}" if best and best != trial.run_id else ""
            raise RecordError(
                f"init_from: the weights of {words} were not kept, only the best trials of a "
                f"search are (search.keep){way_out}"
            )
        try:
            source = WarmStartSource.read(path)
        except CheckpointError as error:
            raise RecordError(f"init_from: {_recorded(search, path, error)}") from error
    fingerprint = source.spec.tokenizer_fingerprint
    return _start(config, words, source, recorded_tokenizer(record, search, fingerprint, home))


def _newest(config: InitFromConfig, name: str, record: Record, home: Home) -> SearchRecord:
    search = record.newest(name)
    if search is None:
        raise _no_source(config, home, [other.name for other in record.searches()])
    return search


def _no_source(config: InitFromConfig, home: Home, known: list[str]) -> RecordError:
    """There is no such search or run; how to get one."""
    where = home.root if home.is_local else home.tracking_uri
    if config.search is None:
        return RecordError(
            f"init_from: no run {config.run} is recorded in {where}; run a search first"
        )
    space = Path("search_spaces", f"{config.search}.yaml")
    command = f"'tuner search --space {space}'" if space.is_file() else "that search"
    others = f", or name one of: {', '.join(known[:_SHOWN_SEARCHES])}" if known else ""
    return RecordError(
        f"init_from: no search called {config.search} is recorded in {where}; run {command} "
        f"first{others}"
    )


def _start(
    config: InitFromConfig, words: str, source: WarmStartSource, tokenizer: TokenizerConfig | None
) -> WarmStart:
    taken = source.tensors_for(optimizer_state=config.optimizer_state)
    return WarmStart(words, source, *taken, tokenizer)


# check -------------------------------------------------------------------------------------


def _check_shapes(space: SearchSpace, start: WarmStart) -> None:
    """Every model of the space must hold exactly the parameters of the source."""
    there = start.source.spec.architecture
    for here in space.shapes(there.vocab_size):
        misfit = first_shape_mismatch(here, start.tensors)
        if misfit is None:
            continue
        name, shape, other = misfit
        causes = [f"{entry}: {shown(getattr(there, entry))}" for entry in _causes(start, here)]
        raise TunerError(
            f"init_from: {name} {shape_text(shape)} in a model of this space and "
            f"{shape_text(other)} in {start.words}; set model: {{{', '.join(causes)}}}, as "
            f"there"
        )


def _causes(start: WarmStart, here: Architecture) -> Iterator[str]:
    """The entries of `model:` that change a shape where they differ."""
    there = start.source.spec.architecture
    shapes = parameter_shapes(there)
    for name, (value, _) in start.differing(here).items():
        if parameter_shapes(there.model_copy(update={name: value})) != shapes:
            yield name


def _check_optimizer(space: SearchSpace, start: WarmStart) -> None:
    """Moments mean something to the optimizer that made them."""
    if not start.init_from.optimizer_steps:
        return
    made_by = start.source.spec.hyperparameters.optimizer
    others = [name for name in space.possible("optimizer") or () if name != made_by]
    if others:
        raise TunerError(
            f"init_from: optimizer_state goes with the optimizer that made it, which is {made_by} "
            f"for {start.words}, and this space may draw {listed(others)}; set optimizer: "
            f"{made_by}, or leave optimizer_state out"
        )
