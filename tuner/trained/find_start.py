"""Finds the source from which the trials of a search start, in the record or in a file.

The tensors of the source are kept twice: in the home, where the workers read them, and with the
record of the search, so that a replay needs neither the record nor the file of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.checkpoints.warm_start import (
    WarmStartSource,
    shape_text,
    start_path,
    write_start,
)
from model.device.peak_memory import BYTES_PER_FROZEN, BYTES_PER_WEIGHT
from model.errors import CheckpointError, CorpusError
from model.exchange.pretrained import Pretrained
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.chat import ChatFormat
from model.spec.data import END_OF_TEXT, TokenizerConfig
from model.spec.lora import LORA_ENTRIES
from model.spec.trial import InitFrom
from model.tokenizer.load import load_tokenizer, vocab_size_of
from tuner.errors import RecordError, StoreError, TunerError
from tuner.home.home import Home
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import SIZES, Constant, Parameter, Value
from tuner.space.remarks import with_model
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
# Entries of `model:` that change no tensor and not what the model computes for one short document.
_FREE = ("context_length", "attend_across_documents")
_DEFAULT_CONTEXT = 1_024  # pretrained models read up to 131,072 tokens, which no trial can afford


@dataclass(frozen=True)
class WarmStart:
    """Source from which the trials of a search start.

    Attributes:
        description: description of the source for the user.
        about: what trials take from it, as the rest of a sentence.
        architecture: architecture of the source.
        optimizer: optimizer whose moments trials take; None if they take none.
        tokenizer: tokenizer of the source, if it holds one.
        tokenizer_fingerprint: fingerprint that the tokenizer must have; None if it is unknown.
        load: returns the tensors with which the trials start, and their entry in specifications.
        chat: how the source writes examples; None if it has learned none.
    """

    description: str
    about: str
    architecture: Architecture
    optimizer: str | None
    tokenizer: TokenizerConfig | None
    tokenizer_fingerprint: str | None
    load: Callable[[], tuple[InitFrom, dict[str, Tensor]]]
    chat: ChatFormat | None = None

    @cached_property
    def _loaded(self) -> tuple[InitFrom, dict[str, Tensor]]:
        return self.load()

    @property
    def init_from(self) -> InitFrom:
        """Entry in specifications, with the digest of the tensors."""
        return self._loaded[0]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors with which the trials start."""
        return self._loaded[1]

    def with_ids(self, facts: DataFacts) -> DataFacts:
        """Return facts with the ids of the source, which may have more than its tokenizer."""
        return replace(facts, vocab_size=max(facts.vocab_size, self.architecture.vocab_size))

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
        expected = self.tokenizer_fingerprint
        if expected is None or fingerprint == expected:
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
        source = self.architecture
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
        if config.huggingface is not None:
            space, start = pretrained_start(space, config.huggingface)
        else:
            start = _find(config, home)
    except (CheckpointError, CorpusError) as error:
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
    if space.data.examples and space.data.chat is None:
        data = space.data.model_copy(update={"chat": start.chat})
        space = space.model_copy(update={"data": data})
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
    if source.spec.architecture.lora_rank:
        raise TunerError(
            f"init_from: {description} is a LoRA trial, whose checkpoint holds adapters only; "
            f"write its weights by 'tuner export RUN --format hf', and start from that folder by "
            f"init_from: {{huggingface: FOLDER}}"
        )
    loaded = source.tensors_for(optimizer_state=config.optimizer_state)
    seen = loaded[0].optimizer_steps
    moments = f"those of {seen:,} updates" if seen else "zero"
    about = (
        f"its weights after {source.step:,} updates (val_loss {source.val_loss:.4f} on its own "
        f"text); the moments are {moments}"
    )
    return WarmStart(
        description, about, source.spec.architecture,
        source.spec.hyperparameters.optimizer if seen else None, tokenizer,
        source.spec.tokenizer_fingerprint, lambda: loaded, source.spec.data.chat,
    )  # fmt: skip


# a pretrained model ------------------------------------------------------------------------


def pretrained_start(space: SearchSpace, folder: str) -> tuple[SearchSpace, WarmStart]:
    """Return a space with the architecture of a pretrained model, and the model as its start.

    Raises:
        CheckpointError: if the model cannot be imported.
        CorpusError: if its tokenizer cannot be used.
        TunerError: if an entry of `model:` differs from the model, or its tokenizer does not fit.
    """
    found = Pretrained.open(folder)
    space = _with_model(space, found)
    path = found.tokenizer_path
    config = None if path is None else TokenizerConfig(file=str(path))
    tokenizer = config and load_tokenizer(config)
    ids = tokenizer.vocab_size if tokenizer else vocab_size_of(space.tokenizer)
    if ids > found.architecture.vocab_size:
        whose = "its tokenizer" if tokenizer else "tokenizer:"
        raise TunerError(
            f"init_from: {folder}: the model has {found.architecture.vocab_size:,} ids, and "
            f"{whose} {ids:,}; give the tokenizer that the model was trained with"
        )

    about = f"{found.about}; training takes {_memory(space, found)}; the moments are zero"
    fingerprint = tokenizer.fingerprint if tokenizer else None
    chat = found.chat_format(tokenizer.end_of_text if tokenizer else END_OF_TEXT)
    return space, WarmStart(
        folder, about, found.architecture, None, config, fingerprint, found.start, chat
    )


def _memory(space: SearchSpace, found: Pretrained) -> str:
    """Return the memory of training as text, without activations."""
    a = found.architecture
    if not space.is_lora:
        memory = BYTES_PER_WEIGHT * a.num_parameters / 1e9
        return f"{memory:.1f} GB for each slot, without activations"
    trained = max(shape.num_trained for shape in space.shapes(a.vocab_size))
    return (
        f"{BYTES_PER_FROZEN * a.num_parameters / 1e9:.2f} GB for the frozen weights, once for a "
        f"machine, and {BYTES_PER_WEIGHT * trained / 1e6:.1f} MB for each slot ({trained:,} "
        f"weights of LoRA), without activations"
    )


def _with_model(space: SearchSpace, found: Pretrained) -> SearchSpace:
    """Return a space whose `model:` is that of a pretrained model."""
    source = found.architecture
    own = {p.name: p for p in space.model.values()}
    has_table = source.position == "learned"  # of as many positions as the context
    entries: dict[str, Value] = {
        name: value
        for name, value in source.model_dump().items()
        if name in SIZES and value != Architecture.model_fields[name].default
    }
    entries |= {"n_kv_heads": source.n_kv_heads, "d_ff": source.d_ff}
    if not has_table:
        entries["context_length"] = min(source.context_length, _DEFAULT_CONTEXT)
    for name, parameter in own.items():
        if name in LORA_ENTRIES:
            continue
        values = space.possible(name)
        if name in _FREE and not (name == "context_length" and has_table):
            ends = [int(end) for end in parameter.distribution.ends()]
            longest = max(ends) if name == "context_length" else 0
            if longest > source.context_length:
                raise TunerError(
                    f"init_from: model.context_length is {longest:,}, and {found.path} reads at "
                    f"most {source.context_length:,} tokens"
                )
        elif values != [getattr(source, name)]:
            raise TunerError(
                f"init_from: model.{name} is {getattr(source, name)} in {found.path}; leave it out"
            )
    made = {
        name: Parameter(name=name, distribution=Constant(value=value))
        for name, value in entries.items()
        if name not in own
    }
    return with_model(space, {**made, **space.model})


# check -------------------------------------------------------------------------------------


def _check_shapes(space: SearchSpace, start: WarmStart) -> None:
    """Check that every model of the space has exactly the parameters of the source."""
    source = start.architecture
    source_shapes = parameter_shapes(source)
    for architecture in space.shapes(source.vocab_size):
        shapes = parameter_shapes(architecture)
        names = dict.fromkeys([*shapes, *source_shapes])
        name = next((n for n in names if shapes.get(n) != source_shapes.get(n)), None)
        if name is None:
            continue
        shape, source_shape = shapes.get(name), source_shapes.get(name)
        entries = _shape_entries(start, architecture)
        fixes = [f"{entry}: {shown(getattr(source, entry))}" for entry in entries]
        raise TunerError(
            f"init_from: {name} {shape_text(shape)} in a model of this space and "
            f"{shape_text(source_shape)} in {start.description}; set model: "
            f"{{{', '.join(fixes)}}}, as in the source"
        )


def _shape_entries(start: WarmStart, architecture: Architecture) -> Iterator[str]:
    """Yield the differing entries of `model:` that change the shape of a parameter."""
    source = start.architecture
    shapes = parameter_shapes(source)
    for name, (value, _) in start.differing(architecture).items():
        if parameter_shapes(source.model_copy(update={name: value})) != shapes:
            yield name


def _check_optimizer(space: SearchSpace, start: WarmStart) -> None:
    """Check that every trial has the optimizer of the source, which its moments belong to."""
    source = start.optimizer
    if source is None:
        return
    others = [name for name in space.possible("optimizer") or () if name != source]
    if others:
        raise TunerError(
            f"init_from: optimizer_state needs the optimizer of the source, which is {source} "
            f"for {start.description}, and this space may draw {listed(others)}; set optimizer: "
            f"{source}, or leave optimizer_state out"
        )
