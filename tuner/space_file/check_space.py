"""Checks of a complete search space: its parts against each other and against the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import compress
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from model.errors import CorpusError
from model.sources.registry import source_bytes
from model.spec.architecture import USED_WHEN
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from model.tokenizer.load import vocab_size_of
from tuner.formatting import broken_rule, shown
from tuner.formatting import listed as in_words
from tuner.space.combinations import listed
from tuner.space.conflicts import conflicts
from tuner.space.parameter import FOLLOWING, Parameter, Value, symbol
from tuner.space.space import SearchSpace
from tuner.space_file.yaml_file import Place, YamlFile

_MOST_SHAPES = 256
_MOST_TOKENS = 2**53  # from here on, whole numbers and floats differ


class SpaceChecks:
    """Checks of one search space; mistakes are noted in the file.

    A check is left out if a section that it reads is already wrong.

    Args:
        space: space of the file; wrong sections have their defaults.
        file: file of the space.
        places: name of a parameter → its place in the file.
    """

    def __init__(self, space: SearchSpace, file: YamlFile, places: Mapping[str, Place]) -> None:
        self._space = space
        self._file = file
        self._places = places

    def run(self) -> None:
        """Note all mistakes."""
        wrong = self._file.is_wrong
        size = None if wrong("data") else self._check_data()
        self._check_start()
        if not wrong("model"):
            self._check_context(size)
        if not wrong("hyperparameters", "budget"):
            self._check_budget()
        if not wrong("hyperparameters", "engine"):
            self._check_batch()
            self._check_dtype()
            self._check_compile()
        if wrong("model", "hyperparameters"):
            return
        self._check_circles()
        if wrong("model", "hyperparameters"):
            return
        self._check_conditions()
        if not wrong("model", "hyperparameters", "tokenizer", "proxy"):
            self._check_shapes()
        if not wrong("model", "hyperparameters", "search"):
            self._check_grid()
        if size is not None and not wrong("model", "hyperparameters", "budget", "proxy"):
            for name, message in conflicts(self._space, size):
                self._note(name, message)

    def _note(self, name: str, message: str, *, at_key: bool = False) -> None:
        """Note a mistake at the place of a parameter."""
        self._file.note(self._places.get(name, ("hyperparameters",)), message, at_key=at_key)

    def _place(self, parameter: Parameter) -> Place:
        """Return the place of a parameter itself, not of the list of its alternatives."""
        place = self._places[parameter.name]
        return (*place, parameter.alternative - 1) if parameter.alternative else place

    def _spelled(self, name: str) -> str:
        """Return the spelling of a parameter in the file."""
        return str(self._places[name][-1]) if name in self._places else symbol(name)

    # data and budget ------------------------------------------------------------------------

    def _check_data(self) -> int | None:
        """Check that the source exists, and return its size in bytes.

        The size is an upper limit of the number of tokens. None if the source is missing, or if the
        size is unknown before reading.
        """
        try:
            size = source_bytes(self._space.data)
        except (CorpusError, ValueError) as error:
            self._file.note(("data",), str(error))
            return None
        if size is not None and size < 2:
            what = "are empty" if size == 0 else "hold one byte, too few to train on"
            self._file.note(("data",), f"data: the files {what}; add text to them")
            return None
        return size

    def _check_start(self) -> None:
        """Check that the checkpoint exists; `trained.find_start` checks its contents."""
        start = self._space.init_from
        if start is not None and start.checkpoint is not None and not _is_file(start.checkpoint):
            message = f"init_from.checkpoint: there is no file {start.checkpoint}; check the path"
            self._file.note(("init_from", "checkpoint"), message)

    def _check_context(self, size: int | None) -> None:
        lengths = [p for p in self._space.model.values() if p.name == "context_length"]
        longest = max((cast(int, end) for p in lengths for end in p.distribution.ends()), default=0)
        if size is not None and longest >= size and not self._space.data.pairs:
            self._note(
                "context_length",
                f"context_length {longest} is longer than the data, which has {size} bytes; use a "
                f"shorter context or more text",
            )

    def _check_budget(self) -> None:
        tokens = self._space.budget.tokens or 0
        if tokens > _MOST_TOKENS:
            message = f"budget.tokens must be at most {_MOST_TOKENS:.1e}, got {tokens:.3g}"
            self._file.note(("budget", "tokens"), message)
        budget = self._space.budget
        budgets = [f"budget.{name}" for name in ("tokens", "flops") if getattr(budget, name)]
        for name in ("total_steps", "epochs"):
            parameter = self._space.hyperparameters.get(name)
            if parameter is not None:
                budgets.append(self._spelled(name))
                if parameter.when:
                    message = f"{budgets[-1]} is the budget, so it cannot depend on a when"
                    self._note(name, f"{message}; remove the when")
        if len(budgets) != 1:
            got = in_words(budgets, "and") if budgets else "none"
            one_of = "budget.tokens, budget.flops, T_total and N_epoch"
            message = f"give exactly one of {one_of}, got {got}"
            self._file.note(("budget",), message)

    def _check_batch(self) -> None:
        if self._file.is_wrong("proxy"):
            return
        try:
            micro_batch = self._space.micro_batch
            wrong = [b for b in self._space.batch_sizes if cast(int, b) % micro_batch]
        except ValueError as error:
            self._note("batch_size", str(error))
            return
        if wrong:
            message = f"every B must be a multiple of the micro-batch {micro_batch}"
            fix = "change one of them, or leave micro_batch out"
            self._file.note(("engine", "micro_batch"), f"{message}, got B = {wrong[0]}; {fix}")

    def _check_dtype(self) -> None:
        engine = self._space.engine
        if engine.dtype == "tf32" and engine.device in ("cpu", "mps"):
            message = f"only GPUs of NVIDIA compute in tf32, and engine.device is {engine.device}"
            self._file.note(("engine", "dtype"), f"{message}; use auto or float32")
        if engine.dtype == "mixed_bfloat16" and engine.device in ("cuda", "mps"):
            message = f"only CPUs compute in mixed_bfloat16, and engine.device is {engine.device}"
            self._file.note(("engine", "dtype"), f"{message}; use auto or bfloat16")

    def _check_compile(self) -> None:
        engine = self._space.engine
        if engine.compile == "on" and engine.device in ("cuda", "mps"):
            message = f"ticks are compiled on a CPU only, and engine.device is {engine.device}"
            self._file.note(("engine", "compile"), f"{message}; use auto or off")

    # conditions, shapes and grid ------------------------------------------------------------

    def _check_circles(self) -> None:
        """Check that neither `when` nor `fraction_of` has a circle."""
        conditions: dict[str, list[str]] = {}
        fractions: dict[str, list[str]] = {}
        defaults = {
            entry.name: [entry.default.name]
            for entry in SYMBOL_TABLE.values()
            if isinstance(entry.default, FractionOf)
        }
        for p in self._all():
            conditions.setdefault(p.name, []).extend(p.when)
            fractions.setdefault(p.name, []).extend([p.fraction_of] if p.fraction_of else [])
            fractions[p.name] += defaults.get(p.name, []) if p.when else []
        fractions = {**fractions, **{n: d for n, d in defaults.items() if n not in fractions}}
        for edges, relation in ((conditions, "depends on"), (fractions, "is a fraction of")):
            circle = _circle(edges)
            if circle:
                path = f" {relation} ".join(map(self._spelled, circle))
                start = next(name for name in circle if name in self._places)
                self._note(start, f"{path}; give one of them a value without this dependency")

    def _all(self) -> Iterator[Parameter]:
        yield from self._space.model.values()
        yield from self._space.hyperparameters.values()

    def _check_conditions(self) -> None:
        """Check that every `when` can hold, alone in its list, and that parameters have effects."""
        for p in self._space.parameters:
            self._check_when(p)
        if self._file.is_wrong("model", "hyperparameters"):
            return
        conditions = {name for p in self._space.parameters for name in p.when}
        try:
            draws = listed(
                self._space.parameter_set, conditions | {"optimizer", "schedule", "position"}
            )
        except ValueError as error:
            self._file.note(("hyperparameters",), str(error))
            return
        cases = [self._space.settings(draw) for draw in draws]
        held: dict[str, int] = {}  # key of a parameter → bits of the cases in which it is drawn
        for p in self._space.parameters:
            is_held = [p.holds(case) for case in cases]
            held[p.key] = sum(1 << i for i, holds in enumerate(is_held) if holds)
            self._check_effect(p, list(compress(cases, is_held)))
            for other in range(1, p.alternative):
                both = held.get(f"{p.name}[{other}]", 0) & held[p.key]
                if both:
                    self._note_both(p, other, cases[(both & -both).bit_length() - 1])
                    break

    def _check_when(self, parameter: Parameter) -> None:
        """Check that the parameters of a `when` can be listed, and have its values."""
        for name, wanted in parameter.when.items():
            possible = self._space.possible(name)
            message = ""
            if name in FOLLOWING and name not in self._places:
                source = FOLLOWING[name]
                message = (
                    f"is derived from {source}; give its values, or use {source} in the condition"
                )
            elif possible is None:
                message = "is drawn from a range or derived; use a choice in the condition"
            elif not set(possible) & set(wanted):
                message = f"is never {in_words(wanted)}; it is {in_words(dict.fromkeys(possible))}"
            if message:
                place = (*self._place(parameter), "when")
                self._file.note(place, f"when: {self._spelled(name)} {message}")

    def _note_both(self, parameter: Parameter, other: int, settings: Mapping[str, Value]) -> None:
        case = in_words([f"{self._spelled(n)} {shown(settings[n])}" for n in parameter.when], "and")
        message = f"alternatives {other} and {parameter.alternative} both apply with {case}"
        message = f"{self._spelled(parameter.name)}: {message}"
        fix = "change one when so that it excludes the other"
        self._file.note((*self._place(parameter), "when"), f"{message}; {fix}")

    def _check_effect(self, parameter: Parameter, cases: list[dict[str, Value]]) -> None:
        """Check that a parameter is drawn, and used, in some case."""
        key = self._spelled(parameter.name)
        if not cases:
            message = f"{key} is never drawn, because its conditions exclude each other"
            self._file.note(self._place(parameter), f"{message}; change its when", at_key=True)
            return
        entry = SYMBOL_TABLE.get(parameter.name)
        used_when = entry.used_when if entry else USED_WHEN.get(parameter.name, {})
        for other, used in used_when.items():
            values = dict.fromkeys(case[other] for case in cases)
            if not set(values) & set(used):
                message = f"{key} has no effect with {other} {in_words(values)}"
                peaked = SYMBOL_TABLE["max_learning_rate"].used_when["schedule"]
                is_peak = parameter.name == "learning_rate" and set(values) <= set(peaked)
                hint = "; did you mean α_max?" if is_peak else ""
                fix = hint or f"; it is used with {other} {in_words(used)}"
                self._file.note(self._place(parameter), message + fix, at_key=True)

    def _check_shapes(self) -> None:
        file = Path(self._space.tokenizer.file or "")
        if file.exists() and not file.is_file() and not file.is_dir():
            message = f"tokenizer.file: {file} is a pipe or a device; give a file"
            self._file.note(("tokenizer", "file"), message)
            return
        try:
            vocab_size = vocab_size_of(self._space.tokenizer)
        except CorpusError as error:
            self._file.note(("tokenizer", "file"), str(error))
            return
        try:
            shapes = self._space.shapes(vocab_size)
            if len(shapes) > _MOST_SHAPES:
                message = f"model: more than {_MOST_SHAPES} different shapes; search fewer sizes"
                self._file.note(("model",), message)
        except ValidationError as error:
            self._file.note(("model",), f"model: {broken_rule('', error.errors()[0])}")
        except ValueError as error:
            self._file.note(("model",), f"model: {error}")
        else:
            self._check_pairs([shape.n_encoder_layers > 0 for shape in shapes])

    def _check_pairs(self, has_encoder: list[bool]) -> None:
        """Check that pairs have an encoder–decoder, and texts a language model."""
        if not all(has_encoder) and self._space.data.pairs:
            message = "data.pairs needs an encoder; set model.n_encoder_layers to 1 or more"
            self._file.note(("data", "pairs"), message)
        elif any(has_encoder) and not self._space.data.pairs:
            message = (
                "n_encoder_layers needs data of pairs; set data.pairs: true, with source: "
                "python-docstrings or files: of tables"
            )
            self._note("n_encoder_layers", message)

    def _check_grid(self) -> None:
        points, trials = self._space.num_grid_points, self._space.search.trials
        if points > trials:
            message = f"the grid has {points:,} points, but search.trials is {trials}"
            self._file.note(("search", "trials"), f"{message}; raise it, or give fewer values")


def _circle(edges: Mapping[str, list[str]]) -> list[str]:
    """Return a shortest circle in a graph, its first node repeated at the end; empty if none."""
    for start in edges:
        paths = [[start]]
        seen: set[str] = set()
        for path in paths:  # grows; each node is visited once, because paths may be very many
            for name in edges.get(path[-1], ()):
                if name == start:
                    return [*path, start]
                if name not in seen:
                    seen.add(name)
                    paths.append([*path, name])
    return []


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long
        return False
