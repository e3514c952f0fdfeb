"""Specification of a trial: a trial's numbers are a function of its fields and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.spec.architecture import Architecture
from model.spec.data import SPLITS, DataConfig, SplitName, TokenizerConfig
from model.spec.derive import derive, with_row_names
from model.spec.hyperparameters import LORA_ROWS, SYMBOL_TABLE, Hyperparameters
from model.spec.lora import check_lora, scale_of
from model.spec.rules import trained
from model.spec.symbol import FractionOf, Value
from model.spec.target import SIZES_OF_TARGET

LARGEST_MICRO_BATCH = 32  # sequences per tick, by default; more are no faster on a CPU
_REPORTS = 10  # of a trial
_MOST_REPORTS = 1_000_000
_VALIDATION_TOKENS = 8_192  # of an evaluation


class PreparedData(Protocol):
    """The properties of a corpus that enter a specification; `Corpus` has them."""

    @property
    def data(self) -> DataConfig:
        """Configuration of the source."""
        ...

    @property
    def tokenizer_config(self) -> TokenizerConfig:
        """Configuration of the tokenizer."""
        ...

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 of the source."""
        ...

    @property
    def tokenizer_fingerprint(self) -> str:
        """SHA-256 of vocabulary, merges, special tokens and pattern."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends a document."""
        ...

    def num_sequences(self, split: SplitName, context_length: int) -> int:
        """Return the number of sequences of a split, or of its pairs."""
        ...


class InitFrom(BaseModel):
    """Tensors that a trial starts from instead of random weights (a warm start).

    The schedule, the warm-up and the data order of the trial still count from 0. Adam's bias
    corrections, 1 − βᵗ, continue at the count of the loaded moments, as they do in torch when an
    optimizer's state is loaded.

    Attributes:
        sha256: of the tensors (`WarmStartSource.tensors_for`), 64 hexadecimal digits.
        optimizer_steps: updates that the loaded moments have seen; 0 if no moments are loaded,
            and the moments start at zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    optimizer_steps: int = Field(default=0, ge=0)


class Continues(BaseModel):
    """Trial, and update of that trial, from which another trial continues instead of update 0.

    The continuing trial starts with the state that `spec` reaches after update `step`, and keeps
    counting from there: updates, schedule and data order. A trial that copies another one in the
    middle of a search is therefore still a pure function of its own specification.

    Attributes:
        spec: specification of the continued trial, which may continue another trial itself.
        step: update of the continued trial at which the copy is made; one of its reports.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: TrialSpec
    step: int = Field(ge=1)


# Rows that a continuing trial must share with the continued one: they set the shapes of the
# saved state and the meaning of its counters. All other rows may change.
KEPT_SYMBOLS = (
    "batch_size", "total_steps", "epochs", "optimizer", "ema_decay", "target_sparsity",
    "prune_start_steps", "prune_end_steps", "prune_interval_steps",
)  # fmt: skip
_KEPT_FIELDS = (
    "architecture", "data", "data_fingerprint", "tokenizer_fingerprint", "train_sequences",
    "validation_sequences", "micro_batch", "report_tokens", "init_from",
)  # fmt: skip


# Values of rows that multipliers are known for; the rows that are not listed may have any value.
SCALED_VALUES: Mapping[str, tuple[Value, ...]] = {
    "optimizer": ("adamw", "muon"), "l1_penalty": (0.0,), "grad_clip_value": (0.0,),
}  # fmt: skip

# The JSON parser stops at a depth of 200, and each link takes two levels.
LONGEST_CHAIN = 64


class TrialSpec(BaseModel):
    """Complete specification of a trial: the trial can be retrained from it alone.

    `TrialSpec.of` fills in the fields that a corpus determines, and defaults.

    Attributes:
        hyperparameters: rows of the symbol table.
        architecture: shape of the model.
        data: source of the text.
        tokenizer: the tokenizer to train, or the file that holds it.
        data_fingerprint: SHA-256 of the source.
        tokenizer_fingerprint: SHA-256 of vocabulary, merges, special tokens and pattern.
        train_sequences: |Data|, training sequences in an epoch.
        validation_sequences: number of validation sequences of an evaluation.
        micro_batch: sequences per tick; B is a multiple of it.
        report_tokens: training tokens between reports.
        seed: the trial's key for weights, data order and dropout.
        init_from: tensors to start from; None means random weights.
        continues: the trial to continue; None means a start at update 0. Everything that sets the
            shape of the saved state is equal in both: architecture, data, B, T_total, optimizer,
            β_ema, pruning and `init_from`. All other rows may differ, and the seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hyperparameters: Hyperparameters
    architecture: Architecture
    data: DataConfig
    tokenizer: TokenizerConfig
    data_fingerprint: str
    tokenizer_fingerprint: str
    train_sequences: int = Field(ge=1)
    validation_sequences: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    report_tokens: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**63)
    init_from: InitFrom | None = None
    continues: Continues | None = None

    @classmethod
    def of(
        cls,
        corpus: PreparedData,
        hyperparameters: Hyperparameters | Mapping[str, Value | FractionOf],
        architecture: Architecture | Mapping[str, Any],
        *,
        budget_tokens: int | None = None,
        validation_sequences: int | None = None,
        micro_batch: int | None = None,
        report_tokens: int | None = None,
        seed: int = 0,
        init_from: InitFrom | None = None,
    ) -> Self:
        """Specify a trial on a prepared corpus, with defaults for the optional fields.

        Args:
            corpus: sets data, tokenizer, both fingerprints and the number of training sequences.
            hyperparameters: complete; or some rows by name or symbol, such as `{"α_max": 1e-3}`,
                which `derive` completes.
            architecture: complete; or some of its entries, to which the corpus adds `vocab_size`
                and `end_of_text`.
            budget_tokens: training tokens of the full budget; None if the hyperparameters set
                T_total or N_epoch.
            validation_sequences: number of sequences of an evaluation; by default those of 8,192
                tokens, or all if there are fewer.
            micro_batch: sequences per tick; by default the largest divisor of B up to 32.
            report_tokens: training tokens between reports; by default a tenth of the budget.
            seed: the trial's key for weights, data order and dropout.
            init_from: tensors to start from; None means random weights.

        Raises:
            ValueError: if the corpus is shorter than one sequence, the architecture does not fit
                its token ids, `budget_tokens` is given with complete hyperparameters, or (as
                `derive`) the rows are wrong.
        """
        a = _architecture_for(corpus, architecture)
        length = a.context_length
        train, validation = (_sequences(corpus, split, length) for split in SPLITS)
        if isinstance(hyperparameters, Hyperparameters):
            if budget_tokens is not None:
                raise ValueError("complete hyperparameters set T_total; leave out budget_tokens")
            h = hyperparameters
        else:
            h = derive(
                with_row_names(hyperparameters),
                train_sequences=train,
                context_length=length,
                budget_tokens=budget_tokens,
            )
        if validation_sequences is None:
            validation_sequences = max(1, min(validation, _VALIDATION_TOKENS // length))
        if micro_batch is None:
            divisors = (b for b in range(1, LARGEST_MICRO_BATCH + 1) if h.batch_size % b == 0)
            micro_batch = max(divisors)
        if report_tokens is None:
            budget = budget_tokens or h.total_steps * h.batch_size * length
            report_tokens = math.ceil(budget / _REPORTS)
        return cls(
            hyperparameters=h,
            architecture=a,
            data=corpus.data,
            tokenizer=corpus.tokenizer_config,
            data_fingerprint=corpus.data_fingerprint,
            tokenizer_fingerprint=corpus.tokenizer_fingerprint,
            train_sequences=train,
            validation_sequences=validation_sequences,
            micro_batch=micro_batch,
            report_tokens=report_tokens,
            seed=seed,
            init_from=init_from,
        )

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        h = self.hyperparameters
        if self.budget_tokens // self.report_tokens > _MOST_REPORTS:
            raise ValueError(
                f"a trial has at most {_MOST_REPORTS:,} reports, got {self.report_tokens:,} tokens "
                f"between reports and {self.budget_tokens:,} in all"
            )
        if self.data.pairs != (self.architecture.n_encoder_layers > 0):
            raise ValueError("an encoder needs data of pairs, and pairs need an encoder")
        if self.data.examples and not self.architecture.attend_across_documents:
            raise ValueError("attend_across_documents: false has no effect on examples")
        if h.batch_size % self.micro_batch:
            raise ValueError(
                f"B must be a multiple of the micro-batch, got {h.batch_size} and "
                f"{self.micro_batch}"
            )
        epochs = math.ceil(h.total_steps * h.batch_size / self.train_sequences)
        if h.epochs != epochs:
            raise ValueError(
                f"N_epoch must be ⌈T_total·B/|Data|⌉ = {epochs}, got {h.epochs} with T_total = "
                f"{h.total_steps}, B = {h.batch_size}, |Data| = {self.train_sequences}"
            )
        return self

    @model_validator(mode="after")
    def _scales(self) -> Self:
        """Check that a proxy has no hyperparameters whose values at other sizes are unknown."""
        if self.architecture.target is not None:
            for name, allowed in SCALED_VALUES.items():
                value = getattr(self.hyperparameters, name)
                if value not in allowed:
                    raise ValueError(
                        f"{SYMBOL_TABLE[name].symbol} {value} does not transfer from a proxy to "
                        f"its target; it must be {' or '.join(map(str, allowed))}"
                    )
        return self

    @model_validator(mode="after")
    def _adapters_fit(self) -> Self:
        start = self.init_from
        steps = None if start is None else start.optimizer_steps
        check_lora(self.architecture.lora_rank, self.hyperparameters, steps)
        return self

    @property
    def rows(self) -> dict[str, Value]:
        """Rows of the symbol table by name; those of LoRA only if the trial has it."""
        is_lora = self.architecture.lora_rank > 0
        h = self.hyperparameters
        return {n: getattr(h, n) for n in SYMBOL_TABLE if is_lora or n not in LORA_ROWS}

    @property
    def lora_scale(self) -> float:
        """Factor s of LoRA's change of a matrix; 0 without LoRA."""
        h = self.hyperparameters
        return scale_of(self.architecture.lora_rank, h.lora_alpha, h.lora_scaling)

    @model_validator(mode="after")
    def _continued_trial_fits(self) -> Self:
        if self.continues is None:
            return self
        parent, step = self.continues.spec, self.continues.step
        pairs = [(name, self, parent) for name in _KEPT_FIELDS]
        rows = [(name, self.hyperparameters, parent.hyperparameters) for name in KEPT_SYMBOLS]
        for name, child, source in (*pairs, *rows):
            if getattr(child, name) != getattr(source, name):
                raise ValueError(
                    f"{name} must be that of the trial that is continued, got "
                    f"{getattr(child, name)} instead of {getattr(source, name)}"
                )
        parent_start = parent.continues.step if parent.continues else 0
        if step not in parent.report_steps[:-1] or step <= parent_start:
            raise ValueError(
                f"a trial is continued after one of its own reports before the last, got step "
                f"{step} of {[s for s in parent.report_steps[:-1] if s > parent_start]}"
            )
        if len(self.chain) > LONGEST_CHAIN:
            raise ValueError(f"a chain of trials has at most {LONGEST_CHAIN} links")
        return self

    @property
    def chain(self) -> tuple[TrialSpec, ...]:
        """Specifications that this trial trains one after the other; the last one is its own.

        Example: trial 7 copies trial 3 after update 40, and trial 3 copied trial 1 after update
        20. The chain of trial 7 is (spec of 1, spec of 3, spec of 7), trained to the updates 20,
        40 and T_total.
        """
        return (*self.continues.spec.chain, self) if self.continues else (self,)

    @property
    def trained_hyperparameters(self) -> Hyperparameters:
        """Hyperparameters that the trial trains with: those of a proxy follow its rules."""
        return trained(self.hyperparameters, self.architecture.target)

    def value_of(self, name: str) -> Any:
        """Return a hyperparameter or entry of the architecture; of a proxy those of its target."""
        a, h = self.architecture, self.hyperparameters
        if name == "batch_size" and a.target is not None:
            return round(h.batch_size / a.target.batch)
        if name in SYMBOL_TABLE:
            return getattr(h, name)
        return getattr(a.target if a.target and name in SIZES_OF_TARGET else a, name)

    @property
    def tokens_per_step(self) -> int:
        """Training tokens of one update."""
        return self.hyperparameters.batch_size * self.architecture.context_length

    @property
    def budget_tokens(self) -> int:
        """Training tokens of the full budget."""
        return self.hyperparameters.total_steps * self.tokens_per_step

    @property
    def report_steps(self) -> tuple[int, ...]:
        """Updates after which the trial reports, in ascending order; the last is T_total.

        Report r follows the first update that completes r·report_tokens, so that trials with
        different batch sizes are compared at the same rungs.
        """
        total = self.hyperparameters.total_steps
        steps = {
            math.ceil(tokens / self.tokens_per_step)
            for tokens in range(self.report_tokens, self.budget_tokens, self.report_tokens)
        }
        return tuple(sorted(steps | {total}))

    @property
    def hash(self) -> str:
        """Identity of the trial: SHA-256 of the canonical JSON, 64 hexadecimal digits.

        The path of the tokenizer is left out: its fingerprint identifies it. So is the longest row
        that is read, which changes no document. A continued trial enters with its own hash and the
        update.
        """
        left_out: dict[str, Any] = {
            "tokenizer": {"file"}, "data": {"max_row_characters"}, "continues": True,
        }  # fmt: skip
        identity = self.model_dump(mode="json", exclude=left_out)
        if self.continues is not None:
            step = self.continues.step
            identity["continues"] = {"hash": self.continues.spec.hash, "step": step}
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _architecture_for(
    corpus: PreparedData, architecture: Architecture | Mapping[str, Any]
) -> Architecture:
    """Complete some entries of an architecture, and check that it fits the ids of a corpus."""
    vocab_size, end_of_text = corpus.vocab_size, corpus.end_of_text
    if not isinstance(architecture, Architecture):
        defaults = {"vocab_size": vocab_size, "end_of_text": end_of_text}
        architecture = Architecture.model_validate({**defaults, **architecture})
    if architecture.vocab_size < vocab_size:
        raise ValueError(
            f"vocab_size must be at least that of the corpus, {vocab_size}, got "
            f"{architecture.vocab_size}"
        )
    if architecture.end_of_text != end_of_text:
        raise ValueError(
            f"end_of_text must be that of the corpus, {end_of_text}, got {architecture.end_of_text}"
        )
    return architecture


def _sequences(corpus: PreparedData, split: SplitName, context_length: int) -> int:
    """Return the number of sequences of a split, at least 1."""
    count = corpus.num_sequences(split, context_length)
    if not count:
        raise ValueError(
            f"the {split} split of the corpus has no sequence of {context_length} tokens; use a "
            f"shorter context or more text"
        )
    return count
