"""A validated search space, and the specification of a draw.

`space_file` reads and checks the file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from pydantic import Field, model_validator

from model.corpus.dataset import num_sequences
from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.derive import derive
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.symbol import FractionOf
from model.spec.trial import KEPT_SYMBOLS, LARGEST_MICRO_BATCH, TrialSpec
from tuner.space.combinations import combinations, corners, count, listed
from tuner.space.data_facts import DataFacts
from tuner.space.defaults import FirstTrial
from tuner.space.objective import Compare, Objective, with_seeds_of_arms
from tuner.space.parameter import AnyDistribution, Choice, Frozen, Parameter, Value, default_value
from tuner.space.parameter_set import ParameterSet
from tuner.space.settings import (
    Budget,
    Confirm,
    EngineConfig,
    InitFromConfig,
    Proxy,
    SearchConfig,
    target_text,
)
from tuner.texts.formatting import listed as in_words


class SearchSpace(Frozen):
    """A validated search space; `space_file.load_space` makes one from YAML.

    A *draw* is a mapping from `Parameter.label` to the value drawn for it.
    """

    name: str = Field(default="search", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    data: DataConfig = DataConfig(source="python-stdlib")
    tokenizer: TokenizerConfig = TokenizerConfig()
    init_from: InitFromConfig | None = None
    model: Mapping[str, Parameter] = Field(default_factory=dict)
    hyperparameters: Mapping[str, Parameter] = Field(default_factory=dict)
    budget: Budget = Budget()
    proxy: Proxy | None = None
    engine: EngineConfig = EngineConfig()
    search: SearchConfig = SearchConfig()
    compare: Compare | None = None
    confirm: Confirm = Confirm()
    objective: Objective = Objective()
    further_objectives: tuple[Objective, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _confirm_arms(cls, data: Any) -> Any:
        return with_seeds_of_arms(data)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives; trials are ranked by the first one."""
        return (self.objective, *self.further_objectives)

    # parameters ----------------------------------------------------------------------------

    @cached_property
    def parameter_set(self) -> ParameterSet:
        """The entries of `model:` and `hyperparameters:`, and their conditions."""
        return ParameterSet([*self.model.values(), *self.hyperparameters.values()])

    @property
    def parameters(self) -> list[Parameter]:
        """All parameters, each after the parameters of its `when`.

        Raises:
            ValueError: if conditions form a circle.
        """
        return self.parameter_set.ordered

    @property
    def is_lora(self) -> bool:
        """True if trials train LoRA's matrices over frozen weights."""
        return any(p.name == "lora_rank" for p in self.model.values())

    @property
    def searched(self) -> list[Parameter]:
        """The parameters that are not constant."""
        return self.parameter_set.searched

    @property
    def searched_names(self) -> list[str]:
        """Names of the searched parameters, each once: columns of tables."""
        return list(dict.fromkeys(p.name for p in self.searched))

    def range_text(self, name: str) -> str:
        """Return what a searched parameter is drawn from, as text; of all its alternatives."""
        return " or ".join(p.describe() for p in self.searched if p.name == name)

    @property
    def explored(self) -> list[Parameter]:
        """The searched parameters that may change during the training of a trial."""
        searched = [p for p in self.hyperparameters.values() if not p.is_constant]
        return [p for p in searched if p.name not in KEPT_SYMBOLS]

    def possible(self, name: str) -> list[Value] | None:
        """Return every value that a parameter can have, set or default; None if not listable."""
        default = default_value(name)
        parameters = [
            p for p in (*self.model.values(), *self.hyperparameters.values()) if p.name == name
        ]
        lists = [None if p.fraction_of else p.distribution.possible_values() for p in parameters]
        if all(p.when for p in parameters):  # also if the space does not set the parameter
            lists.append(None if default is None else [default])
        return None if None in lists else [value for values in lists for value in values or ()]

    @property
    def batch_sizes(self) -> list[Value]:
        """Every B that a trial may have.

        Raises:
            ValueError: if B is a range that cannot be listed, or a proxy cannot divide one.
        """
        values = self.possible("batch_size")
        if values is None:
            raise ValueError("B must be a value, a choice or a grid, so that a micro-batch fits")
        return [self.proxy.batch_of(cast(int, b)) for b in values] if self.proxy else values

    @property
    def micro_batch(self) -> int:
        """Sequences per tick: `engine.micro_batch`, or the largest number that divides every B.

        Raises:
            ValueError: if B is a range, which no micro-batch above 1 divides.
        """
        if self.engine.micro_batch:
            return self.engine.micro_batch
        common = math.gcd(*(int(b) for b in self.batch_sizes))
        return max(b for b in range(1, LARGEST_MICRO_BATCH + 1) if common % b == 0)

    # draws ---------------------------------------------------------------------------------

    def is_drawn(self, parameter: Parameter, drawn: Mapping[str, Value]) -> bool:
        """Return True if a parameter's `when` holds for the values drawn before it."""
        return self.parameter_set.is_drawn(parameter, drawn)

    def settings(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """Return the value of every parameter that a `when` may name: name → value."""
        return self.parameter_set.settings(drawn)

    def values(self, drawn: Mapping[str, Value]) -> dict[str, Value | FractionOf]:
        """Return the constants and drawn values whose `when` holds: name → value."""
        return self.parameter_set.values(drawn)

    def defaults(self) -> dict[str, Value]:
        """Return the draw of the first trial: all defaults, each moved into its range."""
        first = FirstTrial(self.parameter_set, self.trial_tokens)
        return {p.label: first.draw(p) for p in self.searched}

    def only_drawn(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the draw with those of some values, by label, whose `when` holds."""
        return self.parameter_set.only_drawn(values)

    def moved(self) -> list[Parameter]:
        """Return the parameters whose first value differs, or may differ, from the default."""
        first, drawn = FirstTrial(self.parameter_set, self.trial_tokens), self.defaults()
        return [p for p in self.searched if first.moves(p) and self.is_drawn(p, drawn)]

    @property
    def grid(self) -> list[dict[str, Value]]:
        """Every combination of the `grid` parameters; one empty combination if there are none.

        The combination of `defaults` comes first, because the first trial is a point of the grid.
        """
        defaults = self.defaults()
        points = list(combinations(self.parameter_set, self._grid_values))
        return sorted(points, key=lambda point: any(point[k] != defaults[k] for k in point))

    @property
    def num_grid_points(self) -> int:
        """Number of combinations in `grid`, which are counted and not built."""
        return count(self.parameter_set, self._grid_values)

    @property
    def _grid_values(self) -> dict[str, tuple[Value, ...]]:
        return {
            p.label: p.distribution.values for p in self.parameters if p.distribution.kind == "grid"
        }

    # specifications ------------------------------------------------------------------------

    def shapes(self, vocab_size: int) -> list[Architecture]:
        """Return every architecture that may be trained; trials of one form a stack.

        Raises:
            ValueError: if a combination of sizes is impossible (pydantic's ValidationError), an
                entry is a range that cannot be listed, the number of combinations is too large, or
                a target has no proxy.
        """
        return list(dict.fromkeys(map(self._trained, self.targets(vocab_size))))

    def targets(self, vocab_size: int) -> list[Architecture]:
        """Return every architecture that may be drawn; raises ValueError as `shapes`."""
        draws = listed(self.parameter_set, {p.name for p in self.model.values()})
        return list(dict.fromkeys(self._architecture(drawn, vocab_size) for drawn in draws))

    def _trained(self, target: Architecture) -> Architecture:
        """Return the architecture of the trials for a drawn one: its proxy, if there are any."""
        return self.proxy.shrink(target) if self.proxy else target

    def proxy_text(self, vocab_size: int) -> str:
        """Return what the proxies of a space stand for, as sentences; empty without `proxy:`."""
        if self.proxy is None:
            return ""
        targets = self.targets(vocab_size)
        texts = [f"{target_text(a)} ({a.num_parameters:,} weights)" for a in targets]
        return (
            f"Proxy: trials train {self.proxy.describe()} of the target, {in_words(texts[:3])}"
            f"{' …' if len(texts) > 3 else ''}. All values are those of the target."
        )

    def _architecture(
        self, drawn: Mapping[str, Value], vocab_size: int, end_of_text: int = 0
    ) -> Architecture:
        values = self.values(drawn)
        entries = {name: value for name, value in values.items() if name not in SYMBOL_TABLE}
        facts = {"vocab_size": vocab_size, "end_of_text": end_of_text}
        return Architecture.model_validate({**entries, **facts})

    def derive(
        self, drawn: Mapping[str, Value], train_size: int, vocab_size: int | None = None
    ) -> Hyperparameters:
        """Return the complete hyperparameters of a draw.

        Args:
            drawn: as for `spec`.
            train_size: tokens of the training text; number of pairs, if the data are pairs; of
                examples the number of their sequences (`DataFacts.size_in`), or an upper limit.
            vocab_size: number of token ids, which counts with a budget in FLOPs; by default that of
                the tokenizer's configuration.

        Raises:
            ValueError: if the hyperparameters break a rule of the symbol table.
        """
        values, length = self.values(drawn), self._context_length(drawn)
        if self.proxy is not None:
            batch_size = values.get("batch_size", default_value("batch_size"))
            values["batch_size"] = self.proxy.batch_of(cast(int, batch_size))
        return derive(
            {name: value for name, value in values.items() if name in SYMBOL_TABLE},
            train_sequences=max(
                1, train_size if self.data.has_rows else num_sequences(train_size, length)
            ),
            context_length=length,
            budget_tokens=self._budget_of(drawn, vocab_size),
        )

    def _budget_of(self, drawn: Mapping[str, Value], vocab_size: int | None) -> int | None:
        """Return the training tokens of a draw; None if T_total or N_epoch sets them."""
        if self.budget.flops is None:
            return self.trial_tokens
        target = self._architecture(drawn, vocab_size or self._vocab_size)
        return self.affordable(self._trained(target))

    @cached_property
    def _vocab_size(self) -> int:
        from model.tokenizer.load import vocab_size_of  # only a budget in FLOPs needs it

        return vocab_size_of(self.tokenizer)

    def _context_length(self, drawn: Mapping[str, Value]) -> int:
        return cast(int, self.settings(drawn)["context_length"])

    def spec(self, drawn: Mapping[str, Value], corpus: DataFacts, seed: int) -> TrialSpec:
        """Return the specification of a trial.

        Args:
            drawn: label → value of every searched parameter whose `when` holds; others are ignored.
            corpus: facts of the data.
            seed: seed of the trial.

        Raises:
            ValueError: if the values break a rule of the symbol table (`load_space` has checked
                the ends of all ranges), or the corpus is too small.
        """
        target = self._architecture(drawn, corpus.vocab_size, corpus.end_of_text)
        architecture = self._trained(target)
        length = architecture.context_length
        train, validation = corpus.sequences(length)
        return TrialSpec(
            hyperparameters=self.derive(drawn, corpus.size_in(length), corpus.vocab_size),
            architecture=architecture,
            data=self.data,
            tokenizer=self.tokenizer,
            data_fingerprint=corpus.data_fingerprint,
            tokenizer_fingerprint=corpus.tokenizer_fingerprint,
            train_sequences=train,
            validation_sequences=max(1, min(validation, self.budget.validation_tokens // length)),
            micro_batch=self.micro_batch,
            report_tokens=self._report_tokens_of(architecture, corpus),
            seed=seed,
            init_from=corpus.init_from,
        )

    # budgets ---------------------------------------------------------------------------------

    @property
    def trial_tokens(self) -> int | None:
        """Training tokens of a complete trial; None if T_total or N_epoch sets them."""
        tokens = self.budget.tokens
        if tokens is None or self.proxy is None:
            return tokens
        return max(1, round(tokens * self.proxy.tokens))

    def affordable(self, shape: Architecture) -> int:
        """Return the training tokens that `budget.flops` pays for, rounded up."""
        assert self.budget.flops is not None
        return -(-self.budget.flops // round(shape.flops_per_token))

    def _report_tokens_of(self, shape: Architecture, corpus: DataFacts) -> int:
        if self.budget.flops is None:
            return self.report_tokens(corpus)
        return math.ceil(self.affordable(shape) / self.budget.reports)

    def lengths(self, corpus: DataFacts) -> tuple[int, int]:
        """Return the distance of reports and the length of a complete trial, for comparisons.

        Both are in training tokens or, with `budget.flops`, in FLOPs.
        """
        if self.budget.flops is not None:
            return self.budget.flops // self.budget.reports or 1, self.budget.flops
        return self.report_tokens(corpus), self.budget_tokens(corpus)

    def report_tokens(self, corpus: DataFacts) -> int:
        """Return the training tokens between reports: the largest budget, divided evenly."""
        return math.ceil(self.budget_tokens(corpus) / self.budget.reports)

    def budget_tokens(self, corpus: DataFacts) -> int:
        """Return the training tokens of the longest trial that may be drawn."""
        return int(self._tokens(corpus, lambda distribution: distribution.largest()))

    def steps_and_epochs(
        self, corpus: DataFacts, context_length: int, shape: Architecture | None = None
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return smallest and largest T_total, and smallest and largest N_epoch.

        Args:
            corpus: facts of the data.
            context_length: context length of the trials; one of the lengths in `shapes`.
            shape: architecture of the trials; None for all of this length. It counts only with
                `budget.flops`.

        Raises:
            ValueError: if a draw breaks a rule of the symbol table with this corpus.
        """
        if self.budget.flops is not None:
            shapes = [shape] if shape else self.shapes(corpus.vocab_size)
            shapes = [each for each in shapes if each.context_length == context_length]
            return self._affordable_steps(corpus, shapes)
        # Only these set the length of a trial; the others keep the values of the first trial.
        draws = corners(
            self.parameter_set,
            {"context_length": context_length},
            ("batch_size", "total_steps", "epochs", "context_length"),
        )
        defaults, size = self.defaults(), corpus.size_in(context_length)
        complete = [
            self.derive(self.only_drawn(defaults | drawn), size)
            for drawn in draws
            if self._context_length(drawn) == context_length
        ]
        steps, epochs = [h.total_steps for h in complete], [h.epochs for h in complete]
        return (min(steps), max(steps)), (min(epochs), max(epochs))

    def _affordable_steps(
        self, corpus: DataFacts, shapes: Sequence[Architecture]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return what `steps_and_epochs` returns, for architectures with a budget in FLOPs."""
        steps, epochs = [], []
        for shape in shapes:
            length = shape.context_length
            for size in map(int, cast(list[float], self.batch_sizes)):
                steps.append(math.ceil(self.affordable(shape) / (size * length)))
                epochs.append(math.ceil(steps[-1] * size / corpus.sequences(length)[0]))
        return (min(steps), max(steps)), (min(epochs), max(epochs))

    def mean_tokens(self, corpus: DataFacts) -> float:
        """Return the average training tokens of a complete trial."""
        return self._tokens(corpus, lambda distribution: distribution.mean())

    def _tokens(self, corpus: DataFacts, number_of: Callable[[AnyDistribution], float]) -> float:
        """Return the training tokens of a trial with, for instance, the mean of each parameter."""
        if self.trial_tokens is not None:
            return self.trial_tokens
        if self.budget.flops is not None:
            budgets = tuple(self.affordable(shape) for shape in self.shapes(corpus.vocab_size))
            return number_of(Choice(kind="choice", values=budgets))
        lengths = [shape.context_length for shape in self.shapes(corpus.vocab_size)]
        if "epochs" in self.hyperparameters:
            tokens = max(corpus.sequences(length)[0] * length for length in lengths)
            return number_of(self.hyperparameters["epochs"].distribution) * tokens
        return math.prod(
            (
                number_of(self.hyperparameters["total_steps"].distribution),
                number_of(Choice(kind="choice", values=tuple(self.batch_sizes))),
                number_of(Choice(kind="choice", values=tuple(lengths))),
            )
        )
