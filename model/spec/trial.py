"""The specification of a trial: everything that its numbers are a function of."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.hyperparameters import Hyperparameters


class InitFrom(BaseModel):
    """What a trial begins with instead of random weights.

    Its schedule, warm-up and data order count from 0 all the same. The corrections of Adam's
    moments for having begun at zero, 1 − βᵗ, go on where loaded moments stood, as they do in torch
    when an optimizer's state is loaded.

    Attributes:
        sha256: of the tensors (`warm_start.Source.take`), 64 hexadecimal digits.
        optimizer_steps: updates that the moments among the tensors have seen; 0 if there are
            none, and the moments begin at zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    optimizer_steps: int = Field(default=0, ge=0)


class Continues(BaseModel):
    """What a trial goes on from, instead of beginning at update 0.

    It has the state that the other specification reaches after an update, and goes on counting:
    updates, schedule and data order. So a trial that copies another in the middle of a search
    remains a pure function of its own specification.

    Attributes:
        spec: of the trial that is continued; it may continue another one itself.
        step: the update after which it is left, one of its own reports.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: TrialSpec
    step: int = Field(ge=1)


# What gives the state of a trial its shape and its count, and must outlive a change of the rest.
KEPT_SYMBOLS = (
    "batch_size", "total_steps", "epochs", "optimizer", "ema_decay", "target_sparsity",
    "prune_start_steps", "prune_end_steps", "prune_interval_steps",
)  # fmt: skip
_KEPT_FIELDS = (
    "architecture", "data", "data_fingerprint", "tokenizer_fingerprint", "train_sequences",
    "validation_sequences", "micro_batch", "report_tokens", "init_from",
)  # fmt: skip


# JSON is read to a depth of 200, and each link takes two.
LONGEST_CHAIN = 64


class TrialSpec(BaseModel):
    """One trial, completely: retraining it needs nothing else.

    Attributes:
        hyperparameters: the rows of the symbol table.
        architecture: the shape of the model.
        data: where the text comes from.
        tokenizer: the tokenizer to train, or the file that was given.
        data_fingerprint: SHA-256 of the source.
        tokenizer_fingerprint: SHA-256 of vocabulary, merges, special tokens and pattern.
        train_sequences: |Data|, training sequences in an epoch.
        validation_sequences: how many validation sequences an evaluation reads.
        micro_batch: sequences per tick; B is a multiple of it.
        report_tokens: training tokens between reports.
        seed: the trial's key for weights, data order and dropout.
        init_from: what it begins with; None: random weights.
        continues: the trial whose state it goes on from; None: it begins at update 0. What makes
            the shape of that state is the same in both: architecture, data, B, T_total, optimizer,
            β_ema, pruning, and what they began with. All other rows may differ, the seed too.
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

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        h = self.hyperparameters
        if self.data.pairs != (self.architecture.n_encoder_layers > 0):
            raise ValueError("an encoder needs data of pairs, and pairs need an encoder")
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
    def _goes_on_from_what_fits(self) -> Self:
        if self.continues is None:
            return self
        parent, step = self.continues.spec, self.continues.step
        pairs = [(name, self, parent) for name in _KEPT_FIELDS]
        rows = [(name, self.hyperparameters, parent.hyperparameters) for name in KEPT_SYMBOLS]
        for name, here, there in (*pairs, *rows):
            if getattr(here, name) != getattr(there, name):
                raise ValueError(
                    f"{name} must be that of the trial that is continued, got "
                    f"{getattr(here, name)} instead of {getattr(there, name)}"
                )
        begun = parent.continues.step if parent.continues else 0
        if step not in parent.report_steps[:-1] or step <= begun:
            raise ValueError(
                f"a trial is continued after one of its own reports before the last, got step "
                f"{step} of {[s for s in parent.report_steps[:-1] if s > begun]}"
            )
        if len(self.chain) > LONGEST_CHAIN:
            raise ValueError(f"a chain of trials has at most {LONGEST_CHAIN} links")
        return self

    @property
    def chain(self) -> tuple[TrialSpec, ...]:
        """The specifications that a trial trains one after the other; the last is its own."""
        return (*self.continues.spec.chain, self) if self.continues else (self,)

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
        """Updates after which the trial reports, in rising order; the last is T_total.

        Report r comes after the first update that completes r·report_tokens, so that trials
        with different batch sizes are compared at the same rungs.
        """
        total = self.hyperparameters.total_steps
        steps = {
            math.ceil(tokens / self.tokens_per_step)
            for tokens in range(self.report_tokens, self.budget_tokens, self.report_tokens)
        }
        return tuple(sorted(steps | {total}))

    @property
    def hash(self) -> str:
        """The trial's identity: SHA-256 of the canonical JSON, 64 hexadecimal digits.

        Where the tokenizer lay is no part of it: its fingerprint says what it is. What a trial
        continues enters with its own hash and the update.
        """
        left_out: dict[str, Any] = {"tokenizer": {"file"}, "continues": True}
        identity = self.model_dump(mode="json", exclude=left_out)
        if self.continues is not None:
            step = self.continues.step
            identity["continues"] = {"hash": self.continues.spec.hash, "step": step}
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
