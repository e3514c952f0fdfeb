"""The corpus of a search as MLflow's datasets: what was trained on, and what was measured on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.sources.hub import hub_name
from model.spec.data import DataConfig
from tuner.space.data_facts import DataFacts

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXT = "mlflow.data.context"  # what MLflow calls the part that a dataset plays in a run
_LONGEST_NAME = 500  # that MLflow takes


def dataset_inputs(data: DataConfig, facts: DataFacts) -> list[DatasetInput]:
    """The two parts of a corpus, as `MlflowClient.log_inputs` takes them.

    MLflow tells datasets apart by name and digest. The digest begins like the tag
    `data_fingerprint`; what follows tells apart the parts, and other cuts of the same documents
    into parts and tokens: their profiles differ.

    Args:
        data: where the documents come from.
        facts: what they have become.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    noun = "pairs" if facts.has_pairs else "tokens"
    parts = {
        "training": (facts.train_size, facts.train_tokens),
        "validation": (facts.validation_size, facts.validation_tokens),
    }
    source_type, source = _source(data)
    inputs = []
    for context, (size, tokens) in parts.items():
        cut = json.dumps([context, facts.tokenizer_fingerprint, size]).encode()
        digest = f"{facts.data_fingerprint[:16]}-{hashlib.sha256(cut).hexdigest()[:8]}"
        profile = {f"num_{noun}": size, **({"num_tokens": tokens} if tokens else {})}
        profile["vocab_size"] = facts.vocab_size
        dataset = Dataset(
            dataset_name(data), digest, source_type, json.dumps(source), None, json.dumps(profile)
        )
        inputs.append(DatasetInput(dataset, [InputTag(CONTEXT, context)]))
    return inputs


def dataset_name(data: DataConfig) -> str:
    """What people call the data: a source, a data set, or files and folders by their names."""
    if data.hub:
        return hub_name(data)
    return data.source or ", ".join(Path(file).name for file in data.files or ())[:_LONGEST_NAME]


def _source(data: DataConfig) -> tuple[str, dict[str, Any]]:
    """One of MLflow's kinds of sources, and its fields, so that `mlflow.data.get_source` works."""
    if data.hub:
        return "hugging_face", {
            "path": hub_name(data),
            "config_name": data.hub_config,
            "split": data.split,
            "revision": data.revision,
        }
    if data.files and len(data.files) == 1:
        return "local", {"uri": data.files[0]}
    return "code", {"tags": {"source": dataset_name(data)}}
