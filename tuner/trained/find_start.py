"""Finds the source from which the trials of a search start, in the record or in a file.

The tensors of the source are kept twice: in the home, where the workers read them, and with the
record of the search, so that a replay needs neither the record nor the file of the source.
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
from tuner.home.home import Home
from tuner.space.settings import InitFromConfig
from tuner.space.space import SearchSpace
from tuner.space_file.shipped import shipped_spaces
from tuner.storage.states import TOKENIZER_FILE
from tuner.texts.formatting import listed, short_hash, short_run, shown
from tuner.tracking.artifacts import recorded_problem, recorded_tokenizer
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.trained.kept_checkpoint import kept_checkpoint
from tuner.trained.recorded_trials import RecordedTrials

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN_SEARCHES = 5


@dataclass(frozen=True)
class WarmStart:
    """Source from which the trials of a search start.

    Attributes:
        description: description of the source for the user.
        source: its checkpoint.
        init_from: its entry in specifications.
        tensors: tensors with which the trials start.
        tokenizer: tokenizer that is recorded with the source, if it is recorded.
    """

    description: str
    source: WarmStartSource
    init_from: InitFrom
    tensors: dict[str, Tensor]
    tokenizer: TokenizerConfig | None

    def keep(self, home: Home) -> Path:
        """Write the tensors to the home, where workers read them; return the file.

        Raises:
            StoreError: if the file cannot be written.
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
        """Check that a tokenizer is the source's, so that token ids have the same meaning.

        Raises:
            TunerError: if the fingerprints differ.
        """
        expected = self.source.spec.tokenizer_fingerprint
        if fingerprint == expected:
            return
        fix = (
            "leave tokenizer: out, and the source's own is used"
            if self.tokenizer is not None
            else f"give tokenizer: {{file: …}}, the {TOKENIZER_FILE} recorded with the search that "
            f"wrote it"
        )
        raise TunerError(
            f"init_from: {self.description} was trained with another tokenizer (fingerprint "
            f"{short_hash(expected)}… instead of {short_hash(fingerprint)}…); {fix}"
        )

    def differing(self, architecture: Architecture) -> dict[str, tuple[object, object]]:
        """Return entries of `model:` that differ from the source: name → (own, source) value."""
        source = self.source.spec.architecture
        return {
            name: (getattr(architecture, name), getattr(source, name))
            for name in Architecture.model_fields
            if name not in {"vocab_size", "end_of_text"}
            and getattr(architecture, name) != getattr(source, name)
        }


def find_start(
    space: SearchSpace, config: InitFromConfig, home: Home
) -> tuple[SearchSpace, WarmStart]:
    """Find the source of a space and check that it fits; see `warm_start.warm_started`."""
    try:
        start = _find(config, home)
    except CheckpointError as error:
        raise TunerError(f"init_from: {error}") from error
    _check_shapes(space, start)
    _check_optimizer(space, start)
    if "tokenizer" not in space.model_fields_set:
        if start.tokenizer is None:
            raise TunerError(
                f"init_from: {start.description} does not hold its tokenizer; give tokenizer: "
                f"{{file: …}}, the {TOKENIZER_FILE} recorded with the search that wrote it"
            )
        space = space.model_copy(update={"tokenizer": start.tokenizer})
    tokenizer = load_tokenizer(space.tokenizer)
    if tokenizer is not None:  # else it is still to be trained
        start.check_tokenizer(tokenizer.fingerprint)
    return space, start


# find --------------------------------------------------------------------------------------


def _find(config: InitFromConfig, home: Home) -> WarmStart:
    if config.checkpoint is not None:
        return _start(
            config, config.checkpoint, WarmStartSource.read(Path(config.checkpoint)), None
        )
    if home.is_local and not home.has_store:  # opening a store would create it
        raise _no_source(config, home, [])
    trials = RecordedTrials.of(home)
    run_id = config.run
    if config.search is not None:
        run_id = _newest(config, config.search, trials.record, home).best_run
    trial = trials.find(run_id)
    about, search = trial.record, trial.search
    description = f"trial {about.number} of {about.search} (run {short_run(about.run_id)})"
    with TemporaryDirectory() as folder:
        path = kept_checkpoint(trials, trial, folder)
        if path is None:
            best = search.best_run
            fix = f"; use run {short_run(best)}" if best and best != about.run_id else ""
            raise RecordError(
                f"init_from: the weights of {description} were not kept, only the best trials of a "
                f"search are (search.keep){fix}"
            )
        try:
            source = WarmStartSource.read(path)
        except CheckpointError as error:
            raise RecordError(f"init_from: {recorded_problem(search, path, error)}") from error
    fingerprint = source.spec.tokenizer_fingerprint
    tokenizer = recorded_tokenizer(trials.record, search, fingerprint, home)
    return _start(config, description, source, tokenizer)


def _newest(config: InitFromConfig, name: str, record: Record, home: Home) -> SearchRecord:
    search = record.newest(name)
    if search is None:
        raise _no_source(config, home, [other.name for other in record.searches()])
    return search


def _no_source(config: InitFromConfig, home: Home, names: list[str]) -> RecordError:
    """Return the error for a search or run that is not recorded, with a fix."""
    where = home.root if home.is_local else home.tracking_uri
    if config.search is None:
        return RecordError(
            f"init_from: no run {config.run} is recorded in {where}; run a search first"
        )
    is_shipped = config.search in shipped_spaces()
    command = f"'tuner search --space {config.search}'" if is_shipped else "that search"
    others = f", or name one of: {', '.join(names[:_SHOWN_SEARCHES])}" if names else ""
    return RecordError(
        f"init_from: no search called {config.search} is recorded in {where}; run {command} "
        f"first{others}"
    )


def _start(
    config: InitFromConfig,
    description: str,
    source: WarmStartSource,
    tokenizer: TokenizerConfig | None,
) -> WarmStart:
    init_from, tensors = source.tensors_for(optimizer_state=config.optimizer_state)
    return WarmStart(description, source, init_from, tensors, tokenizer)


# check -------------------------------------------------------------------------------------


def _check_shapes(space: SearchSpace, start: WarmStart) -> None:
    """Check that every model of the space has exactly the parameters of the source."""
    source = start.source.spec.architecture
    for architecture in space.shapes(source.vocab_size):
        mismatch = first_shape_mismatch(architecture, start.tensors)
        if mismatch is None:
            continue
        name, shape, source_shape = mismatch
        entries = _shape_entries(start, architecture)
        fixes = [f"{entry}: {shown(getattr(source, entry))}" for entry in entries]
        raise TunerError(
            f"init_from: {name} {shape_text(shape)} in a model of this space and "
            f"{shape_text(source_shape)} in {start.description}; set model: "
            f"{{{', '.join(fixes)}}}, as in the source"
        )


def _shape_entries(start: WarmStart, architecture: Architecture) -> Iterator[str]:
    """Yield the differing entries of `model:` that change the shape of a parameter."""
    source = start.source.spec.architecture
    shapes = parameter_shapes(source)
    for name, (value, _) in start.differing(architecture).items():
        if parameter_shapes(source.model_copy(update={name: value})) != shapes:
            yield name


def _check_optimizer(space: SearchSpace, start: WarmStart) -> None:
    """Check that every trial has the optimizer of the source, which its moments belong to."""
    if not start.init_from.optimizer_steps:
        return
    source = start.source.spec.hyperparameters.optimizer
    others = [name for name in space.possible("optimizer") or () if name != source]
    if others:
        raise TunerError(
            f"init_from: optimizer_state needs the optimizer of the source, which is {source} "
            f"for {start.description}, and this space may draw {listed(others)}; set optimizer: "
            f"{source}, or leave optimizer_state out"
        )
