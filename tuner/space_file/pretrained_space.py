"""The space of a fine-tuning, written for a pretrained model and a file of documents."""

from __future__ import annotations

import json
from pathlib import Path

from model.errors import CheckpointError, CorpusError
from model.exchange.pretrained import Pretrained
from model.sources.fields import text_field
from model.sources.registry import text_bytes
from model.spec.data import DataConfig
from tuner.errors import TunerError

_BYTES_PER_TOKEN = 4  # of English with the vocabularies of pretrained models
_LONGEST_CONTEXT, _SHORTEST_CONTEXT = 512, 16
_FEWEST_UPDATES, _LARGEST_BATCH = 32, 16

_TEMPLATE = """\
# Fine-tuning of a pretrained model, all its weights, on documents of your own:
# {about}.
# 'tuner validate --space {name}.yaml' explains the search before anything is loaded.

name:        {name}                       # searches are called {name}-1, {name}-2, …

# Start weights of every trial; architecture and tokenizer follow from the folder.
init_from:   {{huggingface: {folder}}}

# A twentieth of the documents is held out; val_loss is that of the held-out ones.
data:        {data}

# Of the model, only the context may differ: {longest:,} tokens at most.
model:       {{context_length: {context}}}

hyperparameters:
  # Llama 2 was fine-tuned with 2e-5 (Touvron et al. 2023, 3.1, arXiv:2307.09288); smaller models
  # take higher rates.
  α_max:     {{log: [1e-6, 1e-3]}}
  # A short rise, since the weights are good but the moments are zero, and then straight down to
  # zero (Howard and Ruder 2018, 3.2, arXiv:1801.06146; Mosbach et al. 2021, arXiv:2006.04884).
  schedule:  linear
  α_min:     0
  T_warmup:  {{fraction_of: T_total, uniform: [0.0, 0.1]}}
  λ:         {{log: [1e-3, 0.1]}}             # weight decay pulls towards zero, away from the start
  p_drop:    {{choice: [0.0, 0.1]}}
  B:         {{choice: [4, 8, {largest}]}}           # sequences per update
  τ:         1.0                            # largest gradient norm
  optimizer: adamw

budget:      {{tokens: {tokens:_}, reports: 9}}  # of one trial{epochs}
search:      {{trials: 8, sampler: tpe, scheduler: asha, seed: 0}}
objective:   {{metric: val_loss, mode: min}}
"""


def pretrained_space(name: str, folder: str, file: str) -> str:
    """Return the text of a space that fine-tunes a model on a file.

    Args:
        name: name of the space.
        folder: folder of the pretrained model.
        file: .jsonl, .txt or another file of `data.files`.

    Raises:
        TunerError: if one of them cannot be used; the message says why.
    """
    try:
        found = Pretrained.open(folder)
        field = text_field(Path(file)) if file.endswith(".jsonl") else None
        config = DataConfig(files=(file,), **({} if field is None else {"field": field}))
        size = text_bytes(config) or 0
    except (CheckpointError, CorpusError) as error:
        raise TunerError(str(error)) from error
    longest = found.architecture.context_length
    held_out = config.validation_fraction * size / _BYTES_PER_TOKEN
    context = longest
    if found.architecture.position != "learned":  # a table has one row for each position
        context = min(longest, _LONGEST_CONTEXT)
        while context > max(_SHORTEST_CONTEXT, held_out / 4):
            context //= 2
    fewest = _FEWEST_UPDATES * _LARGEST_BATCH * context
    tokens = max(fewest, 1_000 * round((size - held_out) / _BYTES_PER_TOKEN / 1_000))
    options = f", field: {json.dumps(field, ensure_ascii=False)}" if field != "text" else ""
    return _TEMPLATE.format(
        name=name, about=found.about, folder=json.dumps(folder, ensure_ascii=False),
        data=f"{{files: [{json.dumps(file, ensure_ascii=False)}]{options if field else ''}}}",
        longest=longest, context=context, largest=_LARGEST_BATCH, tokens=tokens,
        epochs=", about one epoch" if tokens > fewest else "",
    )  # fmt: skip
