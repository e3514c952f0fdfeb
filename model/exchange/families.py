"""Families of models of other tools: names, sizes and layouts, read in both directions.

K is absent: one model. D = width, H = heads, d = width of a head, o = outputs, i = inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from model.errors import CheckpointError
from model.spec.architecture import Architecture, parameter_shapes

if TYPE_CHECKING:  # obstacles and configurations are reported without loading torch
    from torch import Tensor

_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "target": (None,), "n_encoder_layers": (0,), "norm_placement": ("pre",),
    "logit_soft_cap": (0.0,), "attend_across_documents": (True,),
}  # fmt: skip
_ROTARY = {**_PLAIN, "position": ("rope",), "norm": ("rmsnorm",)}

# Name of transformers → name of llama.cpp, and ours; several of ours are joined along their rows.
Names = Mapping[str, tuple[str, tuple[str, ...]]]
_ROTARY_ENDS: Names = {
    "model.embed_tokens": ("token_embd", ("token_embeddings",)),
    "model.norm": ("output_norm", ("ln_final",)),
    "lm_head": ("output", ("lm_head",)),
}
_ROTARY_BLOCK: Names = {
    "model.layers.{}.input_layernorm": ("blk.{}.attn_norm", ("ln1",)),
    "model.layers.{}.self_attn.q_proj": ("blk.{}.attn_q", ("attn.q_proj",)),
    "model.layers.{}.self_attn.k_proj": ("blk.{}.attn_k", ("attn.k_proj",)),
    "model.layers.{}.self_attn.v_proj": ("blk.{}.attn_v", ("attn.v_proj",)),
    "model.layers.{}.self_attn.o_proj": ("blk.{}.attn_output", ("attn.output_proj",)),
    "model.layers.{}.self_attn.q_norm": ("blk.{}.attn_q_norm", ("attn.q_norm",)),
    "model.layers.{}.self_attn.k_norm": ("blk.{}.attn_k_norm", ("attn.k_norm",)),
    "model.layers.{}.post_attention_layernorm": ("blk.{}.ffn_norm", ("ln2",)),
    "model.layers.{}.mlp.gate_proj": ("blk.{}.ffn_gate", ("ffn.w1",)),
    "model.layers.{}.mlp.up_proj": ("blk.{}.ffn_up", ("ffn.w3",)),
    "model.layers.{}.mlp.down_proj": ("blk.{}.ffn_down", ("ffn.w2",)),
}
_GPT2_ENDS: Names = {
    "transformer.wte": ("token_embd", ("token_embeddings",)),
    "transformer.wpe": ("position_embd", ("position_embeddings",)),
    "transformer.ln_f": ("output_norm", ("ln_final",)),
    "lm_head": ("output", ("lm_head",)),
}
_GPT2_BLOCK: Names = {
    "transformer.h.{}.ln_1": ("blk.{}.attn_norm", ("ln1",)),
    "transformer.h.{}.attn.c_attn": (
        "blk.{}.attn_qkv", ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    ),
    "transformer.h.{}.attn.c_proj": ("blk.{}.attn_output", ("attn.output_proj",)),
    "transformer.h.{}.ln_2": ("blk.{}.ffn_norm", ("ln2",)),
    "transformer.h.{}.mlp.c_fc": ("blk.{}.ffn_up", ("ffn.w1",)),
    "transformer.h.{}.mlp.c_proj": ("blk.{}.ffn_down", ("ffn.w2",)),
}  # fmt: skip

# entry of ours → key of config.json
_ROTARY_KEYS = {
    "vocab_size": "vocab_size", "context_length": "max_position_embeddings",
    "d_model": "hidden_size", "d_ff": "intermediate_size", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
    "head_width": "head_dim", "norm_eps": "rms_norm_eps", "activation": "hidden_act",
}  # fmt: skip
_GPT2_KEYS = {
    "vocab_size": "vocab_size", "context_length": "n_positions", "d_model": "n_embd",
    "d_ff": "n_inner", "n_layers": "n_layer", "n_heads": "n_head",
    "norm_eps": "layer_norm_epsilon", "activation": "activation_function",
}  # fmt: skip


class Place(NamedTuple):
    """One tensor of a family, and the parameters of ours that it holds.

    Attributes:
        theirs: its name in transformers.
        llama_cpp: its name in llama.cpp.
        ours: our names; several are joined along their rows.
        is_transposed: True if transformers keeps (i, o) instead of (o, i).
    """

    theirs: str
    llama_cpp: str
    ours: tuple[str, ...]
    is_transposed: bool


@dataclass(frozen=True)
class Family:
    """One architecture of transformers.

    Attributes:
        model_type: its name in config.json, and in llama.cpp.
        class_name: class of transformers that writes text with it.
        fits: entry of `Architecture` → values that the family can express.
        ends: names of tensors outside the blocks.
        block: names of tensors in a block, `{}` for its number.
        keys: entry of `Architecture` → key of config.json.
        activations: activation of config.json → ours.
        fixed: keys of config.json that have one value in the models that we can express.
        defaults: values of keys that config.json may leave out.
        is_transposed: True if matrices of blocks are kept as (i, o).
        has_halves: True if llama.cpp, too, rotates the pairs (x[i], x[i + d/2]).
    """

    model_type: str
    class_name: str
    fits: Mapping[str, tuple[Any, ...]]
    ends: Names = field(default_factory=lambda: _ROTARY_ENDS)
    block: Names = field(default_factory=lambda: _ROTARY_BLOCK)
    keys: Mapping[str, str] = field(default_factory=lambda: _ROTARY_KEYS)
    activations: Mapping[str, str] = field(default_factory=lambda: {"silu": "swiglu"})
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    is_transposed: bool = False
    has_halves: bool = False

    def obstacles(self, a: Architecture) -> list[str]:
        """Return the entries that the family cannot express, each as `entry: value`."""
        if a.target is not None:
            return ["the multipliers of a proxy"]
        wrong = {name: getattr(a, name) for name, values in self.fits.items()
                 if getattr(a, name) not in values}  # fmt: skip
        if "n_kv_heads" not in self.keys and a.n_kv_heads != a.n_heads:
            wrong["n_kv_heads"] = a.n_kv_heads
        return [f"{name}: {_shown(value)}" for name, value in wrong.items()]

    def places(self, a: Architecture) -> Iterator[Place]:
        """Yield the tensors of a model without a scaled tied head (`untied`)."""
        shapes = parameter_shapes(a)
        for theirs, (llama_cpp, ours) in self.ends.items():
            yield from _places(shapes, theirs, llama_cpp, ours, is_transposed=False)
        for i in range(a.n_layers):
            for theirs, (llama_cpp, ours) in self.block.items():
                names = tuple(f"layers.{i}.{name}" for name in ours)
                yield from _places(
                    shapes, theirs.format(i), llama_cpp.format(i), names,
                    is_transposed=self.is_transposed,
                )  # fmt: skip

    def shapes(self, a: Architecture) -> dict[str, tuple[int, ...]]:
        """Return the name in transformers → shape of every tensor of a model."""
        own = parameter_shapes(a)
        shapes = {}
        for place in self.places(a):
            rows = sum(own[name][0] for name in place.ours)
            shape = (rows, *own[place.ours[0]][1:])
            shapes[place.theirs] = shape[::-1] if place.is_transposed else shape
        return shapes

    def export(
        self, a: Architecture, weights: Mapping[str, Tensor], *, llama_cpp: bool = False
    ) -> dict[str, Tensor]:
        """Return the weights with the names and in the layout of the family.

        Args:
            a: architecture without obstacles.
            weights: by the names of `parameter_shapes`.
            llama_cpp: True for the names and the layout of llama.cpp.
        """
        import torch

        a, weights = untied(a, weights)
        exported = {}
        for place in self.places(a):
            parts = [weights[name] for name in place.ours]
            if not llama_cpp or self.has_halves:
                parts = [
                    _to_halves(a, name, part) for name, part in zip(place.ours, parts, strict=True)
                ]
            w = torch.cat(parts) if len(parts) > 1 else parts[0]
            is_transposed = place.is_transposed and not llama_cpp
            w = w.T if is_transposed else w
            name = place.llama_cpp if llama_cpp else place.theirs
            exported[name] = w.clone(memory_format=torch.contiguous_format)
        return exported

    def load(self, a: Architecture, tensor: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Return our weights, float32, from the tensors of transformers; the inverse of `export`.

        Args:
            a: architecture of the model.
            tensor: returns a tensor by its name in transformers.
        """
        import torch

        own = parameter_shapes(a)
        weights = {}
        for place in self.places(a):
            w = tensor(place.theirs)
            w = w.T if place.is_transposed else w
            sizes = [own[name][0] for name in place.ours]
            for name, part in zip(place.ours, torch.split(w, sizes), strict=True):
                weights[name] = _from_halves(a, name, part).float().contiguous()
        return {name: weights[name] for name in own}

    def rows(self, a: Architecture, name: str, w: Tensor) -> Tensor:
        """Return a tensor whose rows are those of one of ours, in the order of the family."""
        return _to_halves(a, name, w)

    def own_rows(self, a: Architecture, name: str, w: Tensor) -> Tensor:
        """Undo `rows`."""
        return _from_halves(a, name, w)

    def config(self, a: Architecture) -> dict[str, Any]:
        """Return the config.json of a model."""
        a = _untied(a)
        names = {ours: theirs for theirs, ours in reversed([*self.activations.items()])}
        values = {key: getattr(a, entry) for entry, key in self.keys.items()}
        if "head_width" in self.keys:
            values[self.keys["head_width"]] = a.d_head
        values[self.keys["activation"]] = names[a.activation]
        config = {
            "architectures": [self.class_name], "model_type": self.model_type, **values,
            **self.fixed, "tie_word_embeddings": a.tied_embeddings,
            "bos_token_id": a.end_of_text, "eos_token_id": a.end_of_text, "torch_dtype": "float32",
        }  # fmt: skip
        if a.position == "rope":
            # rope_theta and rope_scaling: where transformers looked for them before version 5
            scaling = _scaling(a)
            config |= {"attention_dropout": 0.0, "rope_theta": a.rope_theta}
            config["rope_parameters"] = {
                "rope_theta": a.rope_theta, **(scaling or {"rope_type": "default"}),
            }  # fmt: skip
            if scaling:
                config["rope_scaling"] = scaling
        return config

    def entries(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of `Architecture` that a config.json says.

        Raises:
            CheckpointError: if the model has what we cannot express, or a size is missing.
        """
        config = {**self.defaults, **config}
        for key, value in self.fixed.items():
            if config.get(key, value) != value:
                raise CheckpointError(
                    f"{key} is {_shown(config[key])}, and models of the family {self.model_type} "
                    f"are imported with {_shown(value)} only"
                )
        missing = [key for key in self.keys.values() if key not in config]
        if missing:
            raise CheckpointError(f"config.json has no {missing[0]}")
        entries = {entry: config[key] for entry, key in self.keys.items()}
        activation = entries["activation"]
        if activation not in self.activations:
            known = ", ".join(self.activations)
            raise CheckpointError(
                f"{self.keys['activation']} is {_shown(activation)}, and only {known} can be "
                f"imported"
            )
        entries["activation"] = self.activations[activation]
        if entries["d_ff"] is None:  # of GPT-2
            entries["d_ff"] = 4 * entries["d_model"]
        # a plain choice of the family, such as its norm
        entries |= {name: v[0] for name, v in self.fits.items() if len(v) == 1} | entries
        if config.get("tie_word_embeddings", False):
            entries |= {"tied_embeddings": True, "scaled_head": False}
        entries = {name: value for name, value in entries.items() if value is not None}
        return entries | (_rope(config) if entries["position"] == "rope" else {})


def untied(
    a: Architecture, weights: Mapping[str, Tensor]
) -> tuple[Architecture, Mapping[str, Tensor]]:
    """Return a model whose tied head divides its input by √D as one with a head of its own."""
    if _untied(a) == a:
        return a, weights
    head = weights["token_embeddings.weight"] * a.d_model**-0.5
    return _untied(a), {**weights, "lm_head.weight": head}


def family_of(a: Architecture) -> Family:
    """Return the family that expresses most of an architecture, the first one of equals."""
    return min(FAMILIES.values(), key=lambda family: len(family.obstacles(a)))


def _untied(a: Architecture) -> Architecture:
    is_scaled = a.tied_embeddings and a.scaled_head
    return a.model_copy(update={"tied_embeddings": False}) if is_scaled else a


def _places(
    shapes: Mapping[str, Any],
    theirs: str,
    llama_cpp: str,
    ours: tuple[str, ...],
    *,
    is_transposed: bool,
) -> Iterator[Place]:
    for kind in ("weight", "bias"):
        names = tuple(f"{name}.{kind}" for name in ours)
        if names[0] in shapes:
            is_matrix = len(shapes[names[0]]) == 2
            yield Place(
                f"{theirs}.{kind}", f"{llama_cpp}.{kind}", names, is_transposed and is_matrix
            )


# rotary pairs ------------------------------------------------------------------------------


def _heads_of(a: Architecture, name: str) -> int:
    """Return the heads whose rows are rotated; 0 for a tensor that is not."""
    if a.position != "rope":
        return 0
    layer = name.rsplit(".", 2)[-2]
    return {"q_proj": a.n_heads, "k_proj": a.n_kv_heads, "q_norm": 1, "k_norm": 1}.get(layer, 0)


def _to_halves(a: Architecture, name: str, w: Tensor) -> Tensor:
    """Reorder rows from rotated neighbours (x[2i], x[2i + 1]), as ours, to (x[i], x[i + d/2])."""
    heads = _heads_of(a, name)
    if not heads:
        return w
    return w.reshape(heads, -1, 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)


def _from_halves(a: Architecture, name: str, w: Tensor) -> Tensor:
    """Undo `_to_halves`."""
    heads = _heads_of(a, name)
    if not heads:
        return w
    return w.reshape(heads, 2, -1, *w.shape[1:]).transpose(1, 2).reshape(w.shape)


_ROPE_KEYS = {
    "rope_factor": "factor", "rope_low_frequency": "low_freq_factor",
    "rope_high_frequency": "high_freq_factor",
    "rope_original_length": "original_max_position_embeddings",
}  # fmt: skip


def _scaling(a: Architecture) -> dict[str, Any]:
    """Return the scaling of rotary angles as transformers writes it; empty for none."""
    if a.rope_scaling == "none":
        return {}
    names = _ROPE_KEYS if a.rope_scaling == "llama3" else {"rope_factor": "factor"}
    values = {key: getattr(a, entry) for entry, key in names.items()}
    return {"rope_type": a.rope_scaling, **values}


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the rotary angles, written before or from version 5 on."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = scaling.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return {"rope_theta": theta}
    if kind not in ("linear", "llama3"):
        raise CheckpointError(
            f"the rotary angles are scaled by {_shown(kind)}, and only linear and llama3 can be "
            f"imported"
        )
    entries = {entry: scaling[key] for entry, key in _ROPE_KEYS.items() if key in scaling}
    return {"rope_theta": theta, "rope_scaling": kind, **entries}


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)[:100]


_LLAMA = {**_ROTARY, "qk_norm": (False,), "biases": ("none",), "activation": ("swiglu", "geglu")}
_NO_BIASES = {"attention_bias": False, "mlp_bias": False}
_ROTARY_DEFAULTS = {
    "head_dim": None, "hidden_act": "silu", "num_key_value_heads": None, "rms_norm_eps": 1e-6,
}  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "llama", "LlamaForCausalLM", _LLAMA, fixed=_NO_BIASES, defaults=_ROTARY_DEFAULTS,
            activations={"silu": "swiglu", "gelu": "geglu"},  # gelu is the exact one in both
        ),
        Family(
            "mistral", "MistralForCausalLM", {**_LLAMA, "activation": ("swiglu",)},
            defaults=_ROTARY_DEFAULTS | {"num_key_value_heads": 8},
        ),
        Family(
            "qwen2", "Qwen2ForCausalLM",
            {**_LLAMA, "biases": ("qkv",), "activation": ("swiglu",)},
            defaults=_ROTARY_DEFAULTS, has_halves=True,
        ),
        Family(
            "qwen3", "Qwen3ForCausalLM",
            {**_LLAMA, "qk_norm": (True,), "activation": ("swiglu",)},
            fixed={"attention_bias": False}, defaults=_ROTARY_DEFAULTS | {"head_dim": 128},
            has_halves=True,
        ),
        Family(
            "gpt2", "GPT2LMHeadModel",
            {
                **_PLAIN, "position": ("learned",), "norm": ("layernorm",), "qk_norm": (False,),
                "biases": ("all",), "activation": ("gelu_tanh", "gelu", "relu", "silu"),
                "head_width": (0,),
            },
            _GPT2_ENDS, _GPT2_BLOCK, _GPT2_KEYS,
            activations={
                "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu",
                "relu": "relu", "silu": "silu",
            },
            fixed={
                "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
                "add_cross_attention": False,
            },
            defaults={
                "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
                "tie_word_embeddings": True,
            },
            is_transposed=True,
        ),
    )
}  # fmt: skip
