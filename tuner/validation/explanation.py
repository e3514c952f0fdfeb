"""The space, the stacks, the cost and the remarks of a search that has not begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from model.corpus.corpus import Corpus
from model.corpus.prepare import cached
from model.device.peak_memory import PeakMemory, peak_memory
from model.device.processor import machine_memory
from model.sources.registry import check_tables, text_bytes
from model.spec.architecture import Architecture
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.space.conflicts import check_contexts, conflicts, context_lengths
from tuner.space.data_facts import DataFacts
from tuner.space.estimate import ASSUMED_BYTES, estimated_facts
from tuner.space.remarks import remarks, without_copies
from tuner.space.space import SearchSpace
from tuner.texts.formatting import counted, shown, size_text
from tuner.trained.warm_start import facts_of, warm_started
from tuner.validation.data_notes import data_notes, example_lines
from tuner.validation.sentences import search_lines
from tuner.workers.devices import has_nvidia_gpu

if TYPE_CHECKING:
    from tuner.trained.find_start import WarmStart

Ends = tuple[int, int]  # the smallest and the largest value

_FACTS = TypeAdapter(DataFacts)
_NAMED = ("n_layers", "d_model", "n_heads", "context_length")


@dataclass(frozen=True)
class StackSummary:
    """The models of one shape.

    Attributes:
        name: sizes of the model, and other entries of `model:` that differ between shapes.
        context: tokens of a sequence.
        parameters: number of weights.
        train_sequences: number of training sequences; None if it is unknown.
        steps: updates of a trial.
        epochs: passes of a trial over the data; None if they are unknown.
    """

    name: str
    context: int
    parameters: int
    train_sequences: int | None
    steps: Ends
    epochs: Ends | None


class ShapePeak(NamedTuple):
    """A model of the space, and the predicted peak memory of its training."""

    architecture: Architecture
    memory: PeakMemory


@dataclass(frozen=True)
class Explanation:
    """What a search of a space trains.

    Attributes:
        space: space with the tokenizer of its warm start.
        facts: facts of the prepared data, or an estimate.
        corpus: prepared data, if it is in the home.
        text_bytes: size of data that has not been prepared; None if it is unknown.
        start: checkpoint from which trials start.
        stacks: models, a stack for each shape.
        notes: remarks on the space.
    """

    space: SearchSpace
    facts: DataFacts
    corpus: Corpus | None
    text_bytes: int | None
    start: WarmStart | None
    stacks: Sequence[StackSummary]
    notes: Sequence[str]

    @property
    def is_exact(self) -> bool:
        """True if the numbers are of the prepared data."""
        return self.corpus is not None

    @cached_property
    def lines(self) -> list[str]:
        """The search in sentences."""
        return search_lines(self.space, self.facts)

    @cached_property
    def tokens(self) -> tuple[int, int]:
        """Training tokens of a search whose trials all end, and those that are expected."""
        return expected_tokens(self.space, self.facts)

    @property
    def parameters(self) -> dict[str, str]:
        """The distributions of the parameters, as text, by label."""
        return {p.label: p.describe() for p in self.space.parameters}

    @property
    def data_lines(self) -> list[str]:
        """Sentences on the prepared data, or on what is not known of data before."""
        if self.corpus is not None:
            lengths = context_lengths(self.space, self.facts.vocab_size)
            return [*example_lines(self.corpus, lengths), *data_notes(self.corpus, lengths)]
        size, budget = self.text_bytes, self.space.budget
        if size is not None:
            basis = f"numbers of sequences are estimated from its {size:,} bytes"
        elif budget.tokens is None and budget.flops is None:
            basis = f"its size is unknown, and numbers assume {ASSUMED_BYTES:,} bytes of text"
        else:
            basis = "its size is unknown before it is read"
        return [f"The corpus has not been prepared yet; {basis}."]

    @cached_property
    def peaks(self) -> Sequence[ShapePeak]:
        """Predicted peak memory of the smallest and of the largest model; one if all are alike."""
        return _peaks(self.space, self.facts)

    @property
    def memory_lines(self) -> list[str]:
        """What a process needs that trains one trial; none if the defaults break a rule."""
        if not self.peaks:
            return []
        *least, most = (size_text(peak.memory.process) for peak in self.peaks)
        needed = f"{least[0]} to {most}" if least else most
        return [f"Memory: about {needed} on a CPU for each trial in training, by prediction."]

    @property
    def start_lines(self) -> list[str]:
        """Sentences on the checkpoint that trials start from; none without one."""
        start = self.start
        if start is None:
            return []
        differing = {
            f"{name} {shown(new)} instead of {shown(old)}"
            for shape in self.space.shapes(self.facts.vocab_size)
            for name, (new, old) in start.differing(shape).items()
        }
        lines = [
            f"Every trial starts from {start.description}, with {start.about}; schedule and data "
            f"order restart. Shapes and tokenizer fit."
        ]
        if differing:
            lines.append(f"Different from the source: {', '.join(sorted(differing))}.")
        return lines

    @property
    def complete(self) -> Mapping[str, Any]:
        """All of it as JSON, as far as no data were prepared; `parse` reads it."""
        return {
            "space": self.space.model_dump(mode="json"),
            "facts": _FACTS.dump_python(self.facts, mode="json"),
            "text_bytes": self.text_bytes,
            "stacks": [asdict(stack) for stack in self.stacks],
            "notes": list(self.notes),
        }

    @classmethod
    def parse(cls, complete: Mapping[str, Any]) -> Explanation:
        """Return the explanation of which `complete` says all.

        Raises:
            ValueError: if it does not.
        """
        return cls(
            SearchSpace.model_validate(complete["space"]),
            _FACTS.validate_python(complete["facts"]),
            None,
            complete["text_bytes"],
            None,
            [StackSummary(**stack) for stack in complete["stacks"]],
            complete["notes"],
        )

    @property
    def as_json(self) -> Mapping[str, Any]:
        """The object of `tuner validate --json`."""
        full, expected = self.tokens
        return {
            "name": self.space.name,
            "init_from": self.start.description if self.start else None,
            "parameters": self.parameters,
            "stacks": {
                f"{stack.name}, context {stack.context}": {
                    "parameters": stack.parameters,
                    "train_sequences": stack.train_sequences,
                    "steps": stack.steps,
                    "epochs": stack.epochs,
                }
                for stack in self.stacks
            },
            "micro_batch": self.space.micro_batch,
            "budget_tokens": self.space.budget_tokens(self.facts),
            "expected_tokens": expected,
            "full_tokens": full,
            "peak_bytes": [round(peak.memory.process) for peak in self.peaks],
            "search": self.lines,
            "notes": self.notes,
            "exact": self.is_exact,
        }


def explain(space: SearchSpace, home: Home, file: str = "") -> Explanation:
    """Explain what a search of a space trains; the first row of each table is read.

    Args:
        space: search space.
        home: home of the prepared corpora and of the source of a warm start; nothing is written.
        file: path of the space's file, for messages.

    Raises:
        CorpusError: if the data cannot be read.
        TunerError: if the space does not fit its data, or the warm start cannot be used.
    """
    space, start = warm_started(space, home)
    corpus = cached(space.data, space.tokenizer, home.corpora)
    size = None
    if corpus is None:
        check_tables(space.data)
        size = text_bytes(space.data)
    if corpus is not None:
        facts = facts_of(space, corpus, start)
    else:
        facts = estimated_facts(space)
        facts = facts if start is None else start.with_ids(facts)
    check_contexts(space, facts)
    for _, message in conflicts(space, facts.train_size):
        about = "" if corpus else "about "
        where = f"with {about}{facts.train_size:,} training {facts.noun}, {message}"
        raise TunerError(f"{file or space.name}: {where}")
    notes = [*remarks(space, facts), *device_remarks(space, facts)]
    space = without_copies(space)
    stacks = _stacks(space, facts, is_known=corpus is not None or size is not None)
    return Explanation(space, facts, corpus, size, start, stacks, notes)


def estimated(space: SearchSpace) -> Explanation:
    """Explain a search whose data nobody has prepared or read, quickly enough for every change.

    Raises:
        CorpusError: if the data cannot be found.
    """
    size, facts = text_bytes(space.data), estimated_facts(space)
    notes = remarks(space, facts)
    space = without_copies(space)
    stacks = _stacks(space, facts, is_known=size is not None)
    return Explanation(space, facts, None, size, None, stacks, list(notes))


def _stacks(space: SearchSpace, facts: DataFacts, *, is_known: bool) -> list[StackSummary]:
    shapes = space.shapes(facts.vocab_size)
    others = [
        name for name in dict.fromkeys(p.name for p in space.model.values()) if name not in _NAMED
        and len({getattr(shape, name) for shape in shapes}) > 1
    ]  # fmt: skip
    stacks = []
    for shape in shapes:
        sequences, _ = facts.sequences(shape.context_length)
        steps, epochs = space.steps_and_epochs(facts, shape.context_length, shape)
        stacks.append(
            StackSummary(
                _name(shape, others),
                shape.context_length,
                shape.num_parameters,
                sequences if is_known else None,
                steps,
                epochs if is_known else None,
            )
        )
    return stacks


def _name(shape: Architecture, others: Sequence[str]) -> str:
    layers, heads = counted(shape.n_layers, "layer"), counted(shape.n_heads, "head")
    name = f"{layers} of {shape.d_model}, {heads}"
    if shape.n_encoder_layers:
        name += f", an encoder of {shape.n_encoder_layers} for {shape.source_length} tokens"
    return name + "".join(f", {other} {shown(getattr(shape, other))}" for other in others)


def device_remarks(space: SearchSpace, facts: DataFacts) -> list[str]:
    """Return remarks on a space that this machine cannot train, one sentence each.

    Args:
        space: search space.
        facts: facts of the data, or an estimate.
    """
    if space.engine.device == "cuda" and not has_nvidia_gpu():
        return [
            "engine.device is cuda, and this machine has no GPU of NVIDIA, so that it can validate "
            "the space but not run the search"
        ]
    return memory_remarks(space, facts)


def memory_remarks(space: SearchSpace, facts: DataFacts) -> list[str]:
    """Return a remark if the largest model of a space does not fit into this machine's memory."""
    peaks, memory = _peaks(space, facts), machine_memory()
    is_on_gpu = space.engine.device in ("auto", "cuda") and has_nvidia_gpu()
    if is_on_gpu or not peaks or peaks[-1].memory.process <= memory:
        return []
    weights = peaks[-1].architecture.num_parameters
    return [
        f"a model of {weights:,} weights needs about {size_text(peaks[-1].memory.process)} of "
        f"memory to train, and this machine has {size_text(memory)}, so that its trials would be "
        f"infeasible; search a smaller model"
    ]


def _peaks(space: SearchSpace, facts: DataFacts) -> Sequence[ShapePeak]:
    """Return the models that need the least and the most memory, with the other defaults."""
    try:
        spec = space.spec(space.only_drawn(space.defaults()), facts, 0)
    except ValueError:  # the facts may be an estimate that breaks a rule
        return []
    peaks = [
        ShapePeak(shape, peak_memory(spec.model_copy(update={"architecture": shape})))
        for shape in space.shapes(facts.vocab_size)
    ]
    ends = [choose(peaks, key=lambda peak: peak.memory.trial) for choose in (min, max)]
    return ends[1:] if ends[0] == ends[1] else ends
