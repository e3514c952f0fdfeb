"""Model card of a registered model: its origin, its result and its use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tuner.conductor.confirmation import Confirmed, summary
from tuner.conductor.verdict import verdict_sentences
from tuner.space.parameter import symbol
from tuner.texts.formatting import counted, short_hash, short_run
from tuner.texts.markdown import cell, code, prose
from tuner.tracking.datasets import dataset_name

if TYPE_CHECKING:
    from tuner.results.result import SearchResult

MOST = 5000  # letters that MLflow's databases store
_VERSIONS = ("device", "dtype", "torch")
_SIZES = ("d_model", "n_layers", "n_encoder_layers", "n_heads", "d_ff", "context_length")

# `registry.takes_place` follows this rule.
RULE = (
    "`champion` moves to a new version unless the current champion was evaluated on the same "
    "metric, data, tokenizer, context length and validation sequences and is at least as good: by "
    "the means of fresh seeds if both have one, otherwise by the values that they were selected "
    "by. The cost of training does not count. `champion` never moves back to an older version that "
    "was evaluated differently. If a search continues, its new version replaces its older champion."
)


def confirmed_of(result: SearchResult) -> Confirmed | None:
    """Return the confirmation of the best trial, if it was retrained."""
    confirmed = result.confirmation.of(result.best.number) if result.confirmation else None
    return confirmed if confirmed is not None and confirmed.count else None


def model_card(result: SearchResult) -> str:
    """Return the card of the best trial of a search in Markdown, short enough for MLflow."""
    parts = [
        _worth(result),
        _searched(result),
        _won(result),
        _use(result),
        f"## Champion\n\n{RULE}",
    ]
    card = "\n\n".join(parts)
    return card if len(card) <= MOST else card[: MOST - 2] + "\n…"


def _worth(result: SearchResult) -> str:
    value, confirmed = result.best.objective(result.metric), confirmed_of(result)
    lines = [
        # MLflow's list of versions shows the first line as plain text
        f"Trial {result.best.number} of {prose(result.name)}: {result.metric} {value:.4f}, "
        f"by which it was selected{_defaults(result)}.",
    ]
    if confirmed:
        span = f"; 95 % interval {confirmed.low:.4f} … {confirmed.high:.4f}"
        interval = span if math.isfinite(confirmed.low) else ""
        lines[-1] += (
            f" Mean of {counted(confirmed.count, 'fresh seed')}: "
            f"**{confirmed.mean:.4f}**{interval}."
        )
    if result.confirmation:
        selected = {trial.number: trial.objective(result.metric) for trial in result.trials}
        verdict = verdict_sentences(result.verdict, result.metric) if result.verdict else ()
        lines += ["", *summary(result.confirmation, result.metric, selected, verdict)[1:]]
    return "\n".join(lines)


def _defaults(result: SearchResult) -> str:
    """Return the value of the defaults, if they were trained to the end like the best trial."""
    defaults = result.defaults
    if defaults is None or not defaults.has_finished:
        return ""
    return f"; the defaults have {defaults.objective(result.metric):.4f}"


def _searched(result: SearchResult) -> str:
    spec, settings = result.best.spec, result.space.search
    confirmation = f", and {result.confirmation_tokens:,} to confirm" if result.confirming else ""
    return (
        f"## What was searched\n\n"
        f"{counted(len(result.trials), 'trial')} of the space `{result.space.name}` by sampler "
        f"{settings.sampler} and scheduler {settings.scheduler}, seed {settings.seed}; at most "
        f"{spec.budget_tokens:,} tokens each, {result.tokens_spent:,} in all{confirmation}. Data: "
        f"{code(dataset_name(spec.data))} ({code(short_hash(spec.data_fingerprint))}), tokenizer "
        f"{code(short_hash(spec.tokenizer_fingerprint))}."
    )


def _won(result: SearchResult) -> str:
    rows = [
        f"| {symbol(name)} | {name} | {cell(prose(result.space.range_text(name)))} | "
        f"{result.best.text_of(name)} |"
        for name in result.space.searched_names
    ]
    a = result.best.spec.architecture
    sizes = ", ".join(f"{name} {getattr(a, name)}" for name in _SIZES if getattr(a, name))
    return "\n".join(
        [
            "## What won",
            "",
            "| | | searched | best |",
            "|---|---|---|---|",
            *rows,
            "",
            f"{a.num_parameters:,} parameters: {sizes}, a vocabulary of {a.vocab_size:,}. Trained "
            f"for {result.best.step:,} updates of {result.best.spec.hyperparameters.batch_size} "
            f"sequences.",
        ]
    )


def _use(result: SearchResult) -> str:
    run, name = result.run_ids[result.best.number], result.space.name
    device, dtype, torch = (prose(result.environment.get(name, "?")) for name in _VERSIONS)
    return f"""\
## Replay

    tuner replay {short_run(run)}

trains it again and compares every report; they are equal to the last bit in the environment of the
training ({device}, {dtype}, torch {torch}).

## Load

    import mlflow
    model = mlflow.pyfunc.load_model("models:/{name}@champion")
    model.predict(["def "], params={{"max_tokens": 64, "temperature": 0.0}})

in a process that has `tuner` installed and MLFLOW_TRACKING_URI set to this store. On a terminal:

    tuner generate {short_run(run)} --prompt "def "
"""
