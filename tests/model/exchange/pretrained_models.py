"""Run by test_pretrained.py, apart: random models of transformers, and what it computes with them.

Writes for each model a folder with config.json and safetensors, and FOLDER.npz with logits, the
gradients of a step by the names in the file, and a text that is written greedily. FOLDER/chat is
there before: a model with a chat template.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCAB, TOKENS, WRITTEN = 97, 24, 100
ROTARY: dict[str, Any] = {"vocab_size": VOCAB, "max_position_embeddings": 160}
SHAPES = (
    {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
     "num_key_value_heads": 2},
    {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
     "num_key_value_heads": 2},
    {"hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3,
     "num_key_value_heads": 1},
)  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip


def configs() -> dict[str, PretrainedConfig]:
    """Each family at three shapes: name → configuration."""
    made: dict[str, PretrainedConfig] = {}
    for number, shape in enumerate(SHAPES):
        sizes = {**ROTARY, **shape}
        wide = {**sizes, "head_dim": 16}
        rope = {"rope_type": "default", "rope_theta": 1e6}
        for name, config in (
            ("llama2", LlamaConfig(**sizes, rms_norm_eps=1e-5)),
            ("llama3", LlamaConfig(**wide, rms_norm_eps=1e-5, rope_parameters=LLAMA3)),
            ("smollm2", LlamaConfig(**sizes, tie_word_embeddings=True, rms_norm_eps=1e-5)),
            ("mistral", MistralConfig(**wide, sliding_window=None)),
            ("qwen2", Qwen2Config(**sizes, tie_word_embeddings=True, rope_parameters=rope)),
            ("qwen3", Qwen3Config(**wide, rope_parameters=rope)),
            ("gpt2", GPT2Config(
                vocab_size=VOCAB, n_positions=160, n_embd=sizes["hidden_size"],
                n_layer=sizes["num_hidden_layers"], n_head=sizes["num_attention_heads"],
                n_inner=sizes["intermediate_size"] if number else None, attn_pdrop=0.0,
                embd_pdrop=0.0, resid_pdrop=0.0,
            )),
        ):  # fmt: skip
            made[f"{name}-{number}"] = config
    return made


def perturbed(config: PretrainedConfig, seed: int) -> Any:
    """A model whose gains and biases are random, too: initial values would hide them."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def main(folder: Path) -> None:
    """Write all models, and what transformers computes with them."""
    torch.set_num_threads(1)
    ids = torch.randint(VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    for seed, (name, config) in enumerate(configs().items()):
        config.bos_token_id = config.eos_token_id = config.pad_token_id = None
        model = perturbed(config, seed)
        model.generation_config.eos_token_id = None
        # in shards, as large models are
        model.save_pretrained(folder / name, max_shard_size="8KB" if name == "llama2-1" else "1GB")
        model(ids, labels=ids).loss.backward()
        grads = {f"grad {n}": p.grad.numpy() for n, p in model.named_parameters()}
        with torch.inference_mode():
            logits = model(ids).logits.numpy()
            written = model.generate(
                ids[:1, :5], do_sample=False, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN
            )
        np.savez(
            folder / f"{name}.npz", ids=ids.numpy(), logits=logits, written=written[0, 5:].numpy(),
            **grads,
        )  # fmt: skip
    answer(folder / "chat")


def answer(folder: Path) -> None:
    """Write the prompt that the chat template of a model makes, and the model's greedy answer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = json.loads((folder / "messages.json").read_text(encoding="utf-8"))
    answers = []
    for messages in prompts:
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.inference_mode():
            written = model.generate(ids, do_sample=False, max_new_tokens=WRITTEN, max_length=None)
        answers.append([ids[0].tolist(), written[0, ids.shape[1] :].tolist()])
    (folder / "answers.json").write_text(json.dumps(answers))


def exported(folder: Path) -> None:
    """Write the logits of each exported model in a folder."""
    torch.set_num_threads(1)
    ids = torch.randint(VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
        assert AutoConfig.from_pretrained(path).architectures == [type(model).__name__]
        with torch.inference_mode():
            np.save(path.with_suffix(".npy"), model(ids).logits.numpy())


if __name__ == "__main__":
    {"make": main, "read": exported}[sys.argv[1]](Path(sys.argv[2]))
