"""Export to a GGUF file, for llama.cpp and programs built on it."""

from __future__ import annotations

from pathlib import Path

from model.exchange.families import family_of
from model.exchange.format import Format, TrainedModel
from model.network.positions import RopeScaling
from model.spec.architecture import Architecture
from model.tokenizer import formats as tokenizer_files
from model.tokenizer.tokenizer import Tokenizer

GGUF_FILE = "model.gguf"
# our pattern → llama.cpp's name of it
_PRE_TOKENIZERS = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "smollm": "smollm"}
_ALL_F32 = 0  # file type of GGUF: all tensors are float32


def _write(model: TrainedModel, folder: Path) -> None:
    from gguf import GGUFWriter, RopeScalingType

    a = model.architecture
    family = family_of(a)
    writer = GGUFWriter(folder / GGUF_FILE, family.model_type)
    writer.add_name(model.name)
    writer.add_file_type(_ALL_F32)
    writer.add_vocab_size(a.vocab_size)
    writer.add_context_length(a.context_length)
    writer.add_embedding_length(a.d_model)
    writer.add_block_count(a.n_layers)
    writer.add_feed_forward_length(a.d_ff)
    writer.add_head_count(a.n_heads)
    writer.add_head_count_kv(a.n_kv_heads)
    if a.norm == "layernorm":
        writer.add_layer_norm_eps(a.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(a.norm_eps)
    if a.head_width:
        writer.add_key_length(a.d_head)
        writer.add_value_length(a.d_head)
    if a.position == "rope":
        writer.add_rope_dimension_count(a.d_head)
        writer.add_rope_freq_base(a.rope_theta)
    if a.rope_scaling == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(a.rope_factor)
    names, kinds = _tokens(model.tokenizer, a)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE_TOKENIZERS[model.tokenizer.pattern])
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(tokenizer_files.merge_lines(model.tokenizer.merges))
    writer.add_bos_token_id(a.end_of_text)
    writer.add_eos_token_id(a.end_of_text)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    for name, weight in family.export(a, model.weights, llama_cpp=True).items():
        writer.add_tensor(name, weight.numpy())
    if (scaling := RopeScaling.of(a)) and a.rope_scaling == "llama3":
        divisors = scaling.divisors(a.d_head, a.rope_theta)
        writer.add_tensor("rope_freqs.weight", divisors.float().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:  # also on a full disk
        writer.close()


def _obstacles(a: Architecture) -> list[str]:
    """Return what llama.cpp's implementations of the families do not have."""
    entries = family_of(a).obstacles(a)
    if a.activation not in ("swiglu", "gelu_tanh") and f"activation: {a.activation}" not in entries:
        entries.append(f"activation: {a.activation}")
    return entries


def _tokens(tokenizer: Tokenizer, a: Architecture) -> tuple[list[str], list[int]]:
    """Return name and kind of every id of the model; ids without a token are unused."""
    from gguf import TokenType

    special = {token.encode() for token in tokenizer.special_tokens}
    names = [f"[unused{i}]" for i in range(a.vocab_size)]
    kinds = [int(TokenType.UNUSED)] * a.vocab_size
    for name, i in tokenizer_files.token_names(tokenizer.vocab, tokenizer.special_tokens).items():
        is_special = tokenizer.vocab[i] in special
        names[i] = name
        kinds[i] = int(TokenType.CONTROL if is_special else TokenType.NORMAL)
    return names, kinds


def _usage(model: TrainedModel) -> str:
    a = model.architecture
    return f"""\
```
llama-completion -m {GGUF_FILE} -no-cnv -p "Once upon a time"
```

A model of the family {family_of(a).model_type} in float32, with a context of \
{a.context_length:,} tokens; \
`llama-quantize` makes smaller files of it.
"""


LLAMA_CPP = Format(
    what="a model of llama.cpp",
    obstacles=_obstacles,
    patterns=tuple(_PRE_TOKENIZERS),
    needs="gguf",
    write=_write,
    usage=_usage,
)
