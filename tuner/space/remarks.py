"""Remarks on a valid space and on prepared data: what hardly has the effect that is meant."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import cast

from model.sources.registry import source_bytes
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Parameter
from tuner.space.space import SearchSpace

_MOST_TOKENS = 10**13  # about what the largest language models have been trained on
_BYTES_PER_ID = 50  # with fewer bytes of text for each token id, most ids are hardly ever seen
_LONG_WARMUP = 0.4  # of all updates


def remarks(space: SearchSpace, facts: DataFacts) -> list[str]:
    """Return remarks on a space, one sentence each.

    Args:
        space: search space without conflicts.
        facts: facts of the data, or an estimate.
    """
    return [
        *_trials(space), *_budget(space, facts), *_shorter_budgets(space, facts),
        *_data(space, facts),
    ]  # fmt: skip


def searches_nothing(space: SearchSpace) -> bool:
    """Return True if every trial would have the same values."""
    return all(len(p.distribution.possible_values() or ()) == 1 for p in space.searched)


def without_copies(space: SearchSpace) -> SearchSpace:
    """Return a space that searches nothing with a single trial, and any other unchanged."""
    if not searches_nothing(space):
        return space
    return space.model_copy(update={"search": space.search.model_copy(update={"trials": 1})})


def with_model(space: SearchSpace, model: Mapping[str, Parameter]) -> SearchSpace:
    """Return a space with another `model:`; a copy would keep what the space has cached."""
    fields = {name: getattr(space, name) for name in space.model_fields_set}
    return SearchSpace(**fields | {"model": model})


def _trials(space: SearchSpace) -> list[str]:
    trials = space.search.trials
    if trials == 1 or not searches_nothing(space):
        return []
    return [
        f"nothing is searched, so all {trials} trials would be the same, and a search trains one; "
        f"give a parameter a range or a choice"
    ]


def _budget(space: SearchSpace, facts: DataFacts) -> list[str]:
    found = []
    lengths = {shape.context_length for shape in space.shapes(facts.vocab_size)}
    update = int(min(cast(list[float], space.batch_sizes))) * min(lengths)
    fewest, most, name = space.trial_tokens, space.trial_tokens, "budget.tokens"
    if space.budget.flops is not None:
        budgets = [space.affordable(shape) for shape in space.shapes(facts.vocab_size)]
        fewest, most = min(budgets), max(budgets)
        name = f"budget.flops {space.budget.flops:.3g} for a model of this space: tokens,"
    if fewest is not None and fewest < update:
        found.append(
            f"{name} {fewest:,} is less than one update, which takes {update:,} tokens; a "
            f"trial trains for one update"
        )
    if most is not None and most > _MOST_TOKENS:
        found.append(
            f"{name} {most:.3g} is more than any language model was trained on; a trial "
            f"will not end"
        )
    steps = 1
    with contextlib.suppress(ValueError):  # the facts may be an estimate that breaks a rule
        steps = max(space.steps_and_epochs(facts, length)[0][1] for length in lengths)
    if 1 < steps < space.budget.reports and not found:
        found.append(
            f"budget.reports {space.budget.reports:,} is more than the {steps:,} updates of the "
            f"longest trial; a trial reports at most once an update"
        )
    return found


def _shorter_budgets(space: SearchSpace, facts: DataFacts) -> list[str]:
    """Remark on a warm-up that is a share of the longest budget."""
    if not space.budget.shorter:
        return []
    h = space.derive(space.defaults(), facts.train_size)
    shortest = h.total_steps * space.budget.shorter[0] // (space.budget.tokens or 1)
    if h.warmup_steps <= _LONG_WARMUP * shortest:
        return []
    return [
        f"T_warmup of the longest budget, {h.warmup_steps} updates, is most of the constant phase "
        f"of the shortest, which has {shortest} updates in all; give T_warmup a smaller number"
    ]


def _data(space: SearchSpace, facts: DataFacts) -> list[str]:
    found = []
    wanted = space.budget.validation_tokens
    is_given = "validation_tokens" in space.budget.model_fields_set
    if is_given and facts.noun == "tokens" and wanted > facts.validation_size:
        found.append(
            f"budget.validation_tokens {wanted:,} is more than the validation text of about "
            f"{facts.validation_size:,} tokens, all of which is used"
        )
    size, vocab_size = source_bytes(space.data), space.tokenizer.vocab_size
    if space.tokenizer.file is None and size is not None and size < _BYTES_PER_ID * vocab_size:
        found.append(
            f"tokenizer.vocab_size {vocab_size:,} is large for {size:,} bytes of text; most tokens "
            f"will be rare, and a smaller vocabulary learns more"
        )
    return found
