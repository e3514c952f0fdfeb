"""The space of a fine-tuning, of a pretrained model on a file of documents or examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from model.errors import CheckpointError, CorpusError
from model.exchange.pretrained import Pretrained
from model.sources.chat_template import render
from model.sources.examples import FORMS, place_of
from model.sources.registry import documents, text_bytes
from model.sources.survey import first_object, text_field
from model.spec.data import DataConfig, TokenizerConfig
from model.tokenizer.load import load_tokenizer
from tuner.errors import TunerError

_BYTES_PER_TOKEN = 4  # of English with the vocabularies of pretrained models
_LONGEST_CONTEXT, _SHORTEST_CONTEXT = 512, 16
_FEWEST_UPDATES, _LARGEST_BATCH = 32, 16
_LONGEST_EXAMPLE = 2_048  # tokens of a context, unless the model reads fewer
_MEASURED = 1_000  # examples
_PACKED = 4  # examples that a sequence has room for
_EPOCHS = 2

_TEMPLATE = """\
# Fine-tuning of a pretrained model, all its weights, on {noun}s of your own:
# {about}.
# 'tuner validate --space {name}.yaml' explains the search before anything is loaded.

name:        {name}                       # searches are called {name}-1, {name}-2, …

# Start weights of every trial; architecture and tokenizer follow from the folder.
init_from:   {{huggingface: {folder}}}

# {data_comment}
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
        file: .jsonl of examples or documents, .txt or another file of `data.files`.

    Raises:
        TunerError: if one of them cannot be used; the message says why.
    """
    try:
        found = Pretrained.open(folder)
        row = first_object(Path(file)) if file.endswith(".jsonl") else {}
        is_chat = any(row.get(key) is not None for key in FORMS)
        made = _of_examples(found, file) if is_chat else _of_documents(found, file)
    except (CheckpointError, CorpusError) as error:
        raise TunerError(str(error)) from error
    fewest = _FEWEST_UPDATES * _LARGEST_BATCH * made.context
    tokens = max(fewest, 1_000 * round(made.tokens / 1_000))
    return _TEMPLATE.format(
        name=name, about=found.about, folder=json.dumps(folder, ensure_ascii=False),
        noun=made.noun, data_comment=made.comment, data=made.entry,
        longest=found.architecture.context_length, context=made.context, largest=_LARGEST_BATCH,
        tokens=tokens, epochs=made.epochs if tokens > fewest else "",
    )  # fmt: skip


class _Data(NamedTuple):
    """The entry `data:` of a space, and what follows from the data.

    Attributes:
        noun: what a row is.
        entry: value of `data:`.
        comment: comment on it.
        context: tokens of a sequence.
        tokens: budget of a trial.
        epochs: what the budget is, the rest of a sentence.
    """

    noun: str
    entry: str
    comment: str
    context: int
    tokens: float
    epochs: str


def _of_documents(found: Pretrained, file: str) -> _Data:
    field = text_field(Path(file)) if file.endswith(".jsonl") else None
    config = DataConfig(files=(file,), **({} if field is None else {"field": field}))
    size = text_bytes(config) or 0
    held_out = config.validation_fraction * size / _BYTES_PER_TOKEN
    context = longest = found.architecture.context_length
    if found.architecture.position != "learned":  # a table has one row for each position
        context = min(longest, _LONGEST_CONTEXT)
        while context > max(_SHORTEST_CONTEXT, held_out / 4):
            context //= 2
    options = f", field: {json.dumps(field, ensure_ascii=False)}" if field != "text" else ""
    shown = json.dumps(file, ensure_ascii=False)
    return _Data(
        "document", f"{{files: [{shown}]{options if field else ''}}}",
        "A twentieth of the documents is held out; val_loss is that of the held-out ones.",
        context, size / _BYTES_PER_TOKEN - held_out, ", about one epoch",
    )  # fmt: skip


def _of_examples(found: Pretrained, file: str) -> _Data:
    """Read all examples, and write the first ones by the model's template, to measure them."""
    if found.tokenizer_path is None:
        raise CorpusError(f"{found.path}: there is no tokenizer; give the folder one")
    tokenizer = load_tokenizer(TokenizerConfig(file=str(found.tokenizer_path)))
    assert tokenizer is not None
    chat = found.chat_format(tokenizer.end_of_text)
    config = DataConfig(files=(file,), examples=True)
    lengths, count = list[int](), 0
    for count, document in enumerate(documents(config), 1):
        if count <= _MEASURED:
            text, _ = render(document.text, chat, place_of(document.name))
            lengths.append(len(tokenizer.encode_numpy(text)))
    if not lengths:
        raise CorpusError(f"data: {file} has no examples; add rows to it")
    mean = sum(lengths) / len(lengths)
    context = longest = found.architecture.context_length
    if found.architecture.position != "learned":
        context = min(longest, _LONGEST_EXAMPLE)
        while context > _SHORTEST_CONTEXT and context // 2 >= max(*lengths, _PACKED * mean):
            context //= 2
    tokens = _EPOCHS * (1 - config.validation_fraction) * mean * count
    return _Data(
        "example", f"{{files: [{json.dumps(file, ensure_ascii=False)}], examples: true}}",
        f"{count:,} examples of about {mean:,.0f} tokens. Answers are learned, and prompts only "
        f"read;\n# a twentieth of the examples is held out, and val_loss is that of their answers.",
        context, tokens, f", about {_EPOCHS} epochs",
    )  # fmt: skip
