"""Export to a folder that Hugging Face transformers loads without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.export import llama
from model.export.format import Format, TrainedModel
from model.generation.settings import GenerationSettings
from model.spec.architecture import Architecture
from model.spec.data import END_OF_TEXT
from model.tokenizer.pretokenizer import PATTERNS

WEIGHTS_FILE = "model.safetensors"
_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu"}  # gelu is the exact one in both


def _config(a: Architecture) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": a.vocab_size,
        "max_position_embeddings": a.context_length,
        "hidden_size": a.d_model,
        "intermediate_size": a.d_ff,
        "num_hidden_layers": a.n_layers,
        "num_attention_heads": a.n_heads,
        "num_key_value_heads": a.n_kv_heads,
        "head_dim": a.d_head,
        "hidden_act": _ACTIVATIONS[a.activation],
        "rms_norm_eps": llama.NORM_EPS,
        "rope_theta": a.rope_theta,  # where transformers looked for it before version 5
        "rope_parameters": {"rope_type": "default", "rope_theta": a.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": a.end_of_text,
        "eos_token_id": a.end_of_text,
        "torch_dtype": "float32",
    }


def _tokenizer_config(a: Architecture) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": a.context_length,
        "bos_token": END_OF_TEXT,  # begins a document, as it ends the one before
        "eos_token": END_OF_TEXT,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _generation_config(a: Architecture) -> dict[str, Any]:
    default = GenerationSettings()
    return {
        "bos_token_id": a.end_of_text,
        "eos_token_id": a.end_of_text,
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
    weights = llama.hugging_face_weights(a, model.weights)
    save_file(weights, folder / WEIGHTS_FILE, {"format": "pt"})
    model.tokenizer.save(folder, "huggingface")
    for name, value in (
        ("config.json", _config(a)),
        ("tokenizer_config.json", _tokenizer_config(a)),
        ("generation_config.json", _generation_config(a)),
    ):
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def _usage(model: TrainedModel) -> str:
    a = model.architecture
    tied = (
        "The head was tied to the embeddings, whose rows it divides by the root of the width; here "
        "it is a matrix of its own.\n"
        if a.tied_embeddings
        else ""
    )
    return f"""\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids)[0]))
```

A Llama model: `LlamaForCausalLM` with a context of {a.context_length:,} tokens. \
`{END_OF_TEXT}` ends a document, and begins one where there is no prompt.

{tied}"""


HUGGING_FACE = Format(
    what="a Llama model of Hugging Face transformers",
    obstacles=lambda a: llama.obstacles(a, tuple(_ACTIVATIONS)),
    patterns=tuple(PATTERNS),
    needs=None,
    write=_write,
    usage=_usage,
    front="---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n",
)
