"""Export to a folder that Hugging Face transformers loads without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.exchange.families import family_of
from model.exchange.format import Format, TrainedModel
from model.exchange.pretrained import CONFIG_FILE, WEIGHTS_FILE
from model.generation.prompts import end_ids
from model.generation.settings import GenerationSettings
from model.tokenizer.library import LIBRARY
from model.tokenizer.pretokenizer import PATTERNS


def _tokenizer_config(model: TrainedModel) -> dict[str, Any]:
    a, end_of_text, chat = model.architecture, model.tokenizer.end_of_text, model.spec.data.chat
    of_chats: dict[str, Any] = {}
    if chat is not None:
        of_chats = {**dict(chat.tokens), "eos_token": chat.end, "add_bos_token": bool(chat.begin)}
        of_chats |= {"chat_template": chat.template} if chat.template else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": a.context_length,
        "bos_token": end_of_text,  # begins a document, as it ends the one before
        "eos_token": end_of_text,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **of_chats,
    }


def _generation_config(model: TrainedModel) -> dict[str, Any]:
    a, default = model.architecture, GenerationSettings()
    ends = end_ids(a.end_of_text, model.spec.data.chat, model.tokenizer)
    return {
        "bos_token_id": a.end_of_text,
        "eos_token_id": [*ends] if len(ends) > 1 else a.end_of_text,
        "pad_token_id": a.end_of_text,
        "do_sample": True,
        "temperature": default.temperature,
        "top_p": default.top_p,
        "top_k": default.top_k,
        "max_length": a.context_length,
    }


def _write(model: TrainedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    a = model.architecture
    family = family_of(a)
    weights = family.export(a, model.weights)
    save_file(weights, folder / WEIGHTS_FILE, {"format": "pt"})
    model.tokenizer.save(folder, "huggingface")
    for name, value in (
        (CONFIG_FILE, family.config(a)),
        ("tokenizer_config.json", _tokenizer_config(model)),
        ("generation_config.json", _generation_config(model)),
    ):
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def _usage(model: TrainedModel) -> str:
    a = model.architecture
    family = family_of(a)
    # transformers 5 takes the pre-tokenizer of Qwen for a qwen2, whatever tokenizer.json says
    is_own = family.model_type == "qwen2" and model.tokenizer.pattern != "qwen2"
    loader = "PreTrainedTokenizerFast" if is_own else "AutoTokenizer"
    tied = (
        "The head was tied to the embeddings, whose rows it divides by the root of the width; here "
        "it is a matrix of its own.\n"
        if a.tied_embeddings and a.scaled_head
        else ""
    )
    return f"""\
```python
from transformers import AutoModelForCausalLM, {loader}

tokenizer = {loader}.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids)[0]))
```

A model of the family {family.model_type}: `{family.class_name}` with a context of \
{a.context_length:,} tokens. \
`{model.tokenizer.end_of_text}` ends a document, and begins one where there is no prompt.

{tied}"""


HUGGING_FACE = Format(
    what="a model of Hugging Face transformers",
    obstacles=lambda a: family_of(a).obstacles(a),
    patterns=(*PATTERNS, LIBRARY),
    needs=None,
    write=_write,
    usage=_usage,
    front="---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n",
)
