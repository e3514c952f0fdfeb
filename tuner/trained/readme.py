"""README of an exported model: description, numbers, and how to train it again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import tuner
from model.engine.report import ADAPTER_METRICS, SOME_METRICS
from model.spec.data import DataConfig
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import TrialSpec
from tuner.conductor.confirmation import Confirmed
from tuner.results.result import SearchResult
from tuner.texts.markdown import cell, code, prose
from tuner.trained.load_trial import TrainedTrial


def card(trained: TrainedTrial, result: SearchResult | None) -> str:
    """Return description and numbers of the model in Markdown.

    Args:
        trained: the trial.
        result: result of its search, which may have confirmed the trial; None if unknown.
    """
    trial, a = trained.trial, trained.spec.architecture
    kind = "An encoder–decoder" if a.n_encoder_layers else "A language model"
    search = prose(trial.search)
    return f"""\
# {search}, trial {trial.number}

{kind} of {a.num_parameters:,} parameters: trial {trial.number} of the search {search} \
({prose(trial.status)}), found and trained by tuner {tuner.__version__}.

## Numbers

{_table(("Number", "Value", ""), _numbers(trained, result))}"""


def details(trained: TrainedTrial) -> str:
    """Return data, hyperparameters, architecture and the replay command in Markdown."""
    trial, spec = trained.trial, trained.spec
    a = spec.architecture
    rows = ((SYMBOL_TABLE[name].symbol, name, value) for name, value in spec.rows.items())
    entries = ((name, json.dumps(value).strip('"')) for name, value in a.model_dump().items())
    versions = ", ".join(f"{name} {prose(value)}" for name, value in trial.environment.items())
    return f"""\
## Data

{_data(spec.data)}, of which {spec.train_sequences:,} sequences are for training. SHA-256 of the \
data {code(spec.data_fingerprint)}, of the tokenizer {code(spec.tokenizer_fingerprint)}.

## Hyperparameters

{_table(("Symbol", "Name", "Value"), rows)}
## Architecture

{_table(("Entry", "Value"), entries)}
## Train it again

```
tuner replay {trial.run_id}
```

retrains it where the search was recorded, and compares every report. Its specification has the \
SHA-256 `{spec.hash}`; it was trained with {versions}.
"""


def _numbers(trained: TrainedTrial, result: SearchResult | None) -> Iterable[tuple[str, str, str]]:
    """Yield name, value and explanation of each number."""
    trial, spec = trained.trial, trained.spec
    held_out = f"nats per token, {spec.validation_sequences:,} held-out sequences"
    if "val_loss" in trial.metrics:
        loss = trial.metrics["val_loss"]
        yield "val_loss", f"{loss:.4f}", held_out
        yield "perplexity", f"{math.exp(min(loss, 700)):.4g}", "e to the val_loss"
    for name in SOME_METRICS:
        if name in trial.metrics and not name.startswith("train"):
            what = "of LoRA's matrices" if name in ADAPTER_METRICS else "on the held-out data"
            yield name, f"{trial.metrics[name]:.4g}", what
    confirmed = _confirmed(trained, result)
    if confirmed is not None and result is not None and confirmed.count:
        yield (
            f"confirmed {result.metric}",
            f"{confirmed.mean:.4f}",
            f"mean of {confirmed.count} retrainings with fresh seeds, 95 % interval "
            f"{confirmed.low:.4f} … {confirmed.high:.4f}",
        )
    if trained.note:
        yield "these weights", "", prose(trained.note)
    yield "updates", f"{trained.step:,}", f"of {spec.hyperparameters.total_steps:,}"
    yield "tokens", f"{trained.step * spec.tokens_per_step:,}", "read in training"


def _confirmed(trained: TrainedTrial, result: SearchResult | None) -> Confirmed | None:
    """Return the confirmation of this configuration, if it was retrained."""
    if result is None or result.confirmation is None:
        return None
    trial = trained.trial
    number = trial.number if trial.confirms is None else trial.confirms
    return result.confirmation.of(number)


def _data(data: DataConfig) -> str:
    if data.hub:
        return f"The data set {code(data.hub)} of the Hugging Face hub"
    if data.files:
        return f"The files {', '.join(map(code, data.files))}"
    return code(data.source)


def _table(head: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(cell(str(value)) for value in cells) + " |\n"

    return line(head) + line("---" for _ in head) + "".join(map(line, rows))


def spec_pattern(spec: TrialSpec) -> str | None:
    """Return the pattern by which the tokenizer splits text; None if only its file has it."""
    return spec.tokenizer.pattern if spec.tokenizer.file is None else None
