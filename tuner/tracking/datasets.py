"""The corpus of a search as datasets of MLflow: its training and its validation part."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.sources.hub import hub_name
from model.spec.data import DataConfig
from tuner.space.data_facts import DataFacts
from tuner.texts.control_characters import in_one_line

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXT = "mlflow.data.context"  # MLflow's tag for the role of a dataset in a run
_LONGEST_NAME = 500  # letters that MLflow accepts


def dataset_inputs(data: DataConfig, facts: DataFacts) -> list[DatasetInput]:
    """Return the two parts of a corpus, as `MlflowClient.log_inputs` takes them.

    MLflow identifies a dataset by name and digest. The digest begins like the tag
    `data_fingerprint`. The rest of the digest differs between the two parts, and between other
    splits or tokenizations of the same documents: their profiles differ.

    Args:
        data: where the documents come from.
        facts: sizes and fingerprints of the prepared corpus.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    parts = {
        "training": (facts.train_size, facts.train_tokens),
        "validation": (facts.validation_size, facts.validation_tokens),
    }
    source_type, source = _source(data)
    inputs = []
    for context, (size, tokens) in parts.items():
        identity = json.dumps([context, facts.tokenizer_fingerprint, size]).encode()
        digest = f"{facts.data_fingerprint[:16]}-{hashlib.sha256(identity).hexdigest()[:8]}"
        profile = {f"num_{facts.noun}": size, **({"num_tokens": tokens} if tokens else {})}
        profile["vocab_size"] = facts.vocab_size
        dataset = Dataset(
            dataset_name(data), digest, source_type, json.dumps(source), None, json.dumps(profile)
        )
        inputs.append(DatasetInput(dataset, [InputTag(CONTEXT, context)]))
    return inputs


def dataset_name(data: DataConfig) -> str:
    """Return the name of the data for people: source, data set, or names of files and folders."""
    if data.hub:
        return hub_name(data)
    names = ", ".join(Path(file).name for file in data.files or ())
    return data.source or in_one_line(names)[:_LONGEST_NAME]


def _source(data: DataConfig) -> tuple[str, dict[str, Any]]:
    """Return MLflow's type of source and its fields, as `mlflow.data.get_source` reads them."""
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
