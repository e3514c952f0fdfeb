"""What is said of a registered model: where it comes from, what it is worth, how to use it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tuner.conductor.confirmation import Confirmed, summary
from tuner.space.parameter import symbol
from tuner.tracking.datasets import dataset_name

if TYPE_CHECKING:
    from tuner.results.result import SearchResult

MOST = 5000  # letters that MLflow's databases keep
_SHOWN_LETTERS = 8  # of a run id
_SHOWN_DIGITS = 12  # of a fingerprint
_SIZES = ("d_model", "n_layers", "n_encoder_layers", "n_heads", "d_ff", "context_length")

RULE = (
    "`champion` moves to a new version unless the present one was measured alike (the same metric, "
    "data, tokenizer, context and validation sequences) and is at least as good: by the means of "
    "fresh seeds if both have one, otherwise by the values that they were selected by. What "
    "training cost does not count."
)


def confirmed_of(result: SearchResult) -> Confirmed | None:
    """What retrainings of the best trial gave, if it was retrained."""
    found = result.confirmation.of(result.best.number) if result.confirmation else None
    return found if found is not None and found.count else None


def model_card(result: SearchResult) -> str:
    """The best trial of a search in Markdown, short enough for MLflow."""
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
        # the first line is also what MLflow's list of versions shows, as it stands
        f"Trial {result.best.number} of {result.name}: {result.metric} {value:.4f}, "
        f"by which it was selected; the defaults have "
        f"{result.trials[0].objective(result.metric):.4f}.",
    ]
    if confirmed:
        seeds = f"{confirmed.count} fresh seed{'s' * (confirmed.count > 1)}"
        span = f"; 95 % interval {confirmed.low:.4f} … {confirmed.high:.4f}"
        known = span if math.isfinite(confirmed.low) else ""
        lines[-1] += f" Mean of {seeds}: **{confirmed.mean:.4f}**{known}."
    if result.confirmation:
        selected = {row.number: row.objective(result.metric) for row in result.trials}
        lines += ["", *summary(result.confirmation, result.metric, selected)[1:]]
    return "\n".join(lines)


def _searched(result: SearchResult) -> str:
    spec, settings = result.best.spec, result.space.search
    more = f", and {result.confirmation_tokens:,} to confirm" if result.confirming else ""
    return (
        f"## What was searched\n\n"
        f"{len(result.trials)} trials of the space `{result.space.name}` by sampler "
        f"{settings.sampler} and scheduler {settings.scheduler}, seed {settings.seed}; at most "
        f"{spec.budget_tokens:,} tokens each, {result.tokens_spent:,} in all{more}. Data: "
        f"{dataset_name(spec.data)} (`{spec.data_fingerprint[:_SHOWN_DIGITS]}`), tokenizer "
        f"`{spec.tokenizer_fingerprint[:_SHOWN_DIGITS]}`."
    )


def _won(result: SearchResult) -> str:
    ranges: dict[str, list[str]] = {}
    for parameter in result.space.searched:
        ranges.setdefault(parameter.name, []).append(parameter.describe())
    rows = [
        f"| {symbol(name)} | {name} | {' or '.join(told)} | {result.best.text_of(name)} |"
        for name, told in ranges.items()
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
    known = result.environment.get
    where = f"{known('device', '?')}, {known('dtype', '?')}, torch {known('torch', '?')}"
    return f"""\
## Replay

    tuner replay {run[:_SHOWN_LETTERS]}

trains it again and compares every report: to the last bit on what it was trained with ({where}).

## Load

    import mlflow
    model = mlflow.pyfunc.load_model("models:/{name}@champion")
    model.predict(["def "], params={{"max_tokens": 64, "temperature": 0.0}})

in a process that has `tuner` installed and MLFLOW_TRACKING_URI set to this store. On a terminal:

    tuner generate {run[:_SHOWN_LETTERS]} --prompt "def "
"""
