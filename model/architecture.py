"""What changes tensor shapes or the computation: trials that agree here can share a stack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Activation = Literal["swiglu", "geglu", "relu", "gelu", "silu"]
Position = Literal["rope", "sinusoidal", "learned", "alibi", "none"]

_GATED = ("swiglu", "geglu")

# entry → name → values of that for which the entry has an effect; the others always have one
USED_WHEN: Mapping[str, Mapping[str, tuple[str, ...]]] = {"rope_theta": {"position": ("rope",)}}


def default_d_ff(d_model: int, activation: Activation = "swiglu") -> int:
    """Inner width of the feed-forward layer.

    A gated one has three matrices and gets 8/3·d_model, rounded to the nearest multiple of 64; a
    plain one has two and gets 3/2 of that, about 4·d_model, so that both hold equally many
    parameters.

    Source: Shazeer 2020, section 2 (arXiv:2002.05202): ⅔ of the usual 4·d_model.
    """
    gated = max(64, 64 * round(8 * d_model / 3 / 64))
    return gated if activation in _GATED else 3 * gated // 2


class Architecture(BaseModel):
    """One Transformer language model: its sizes, and how it computes.

    Raises:
        ValidationError: if a size is out of range or the choices do not fit each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocab_size: int = Field(ge=257, description="ids of the tokenizer")
    end_of_text: int = Field(default=0, ge=0, description="id of the token that ends a document")
    context_length: int = Field(default=64, ge=1, le=1_048_576, description="tokens per sequence")
    d_model: int = Field(
        default=64, ge=4, le=65_536, description="width of the residual stream, a multiple of 4"
    )
    n_layers: int = Field(default=2, ge=1, le=1_000, description="Transformer blocks")
    n_heads: int = Field(default=4, ge=1, le=1_024, description="attention heads")
    n_kv_heads: int = Field(
        default=0, ge=0, le=1_024, validate_default=True,
        description="heads of keys and values, each shared by n_heads / n_kv_heads query heads; "
        "0 means n_heads",
    )  # fmt: skip
    activation: Activation = Field(default="swiglu", description="of the feed-forward layer")
    d_ff: int = Field(
        default=0, ge=0, le=1_048_576, validate_default=True,
        description="inner width of the feed-forward layer, a multiple of 32; 0 means 8/3·d_model "
        "to the nearest multiple of 64, and 3/2 of that if the activation is not gated",
    )  # fmt: skip
    position: Position = Field(default="rope", description="how a token knows where it stands")
    rope_theta: float = Field(default=10_000.0, gt=1, description="base of the rotary angles")
    norm: Literal["rmsnorm", "layernorm"] = Field(default="rmsnorm", description="of activations")
    norm_placement: Literal["pre", "post"] = Field(
        default="pre", description="norm of each branch's input, or of the sum after it"
    )
    qk_norm: bool = Field(default=False, description="rmsnorm of each head's queries and keys")
    tied_embeddings: bool = Field(
        default=False, description="the head uses the table of the token embeddings"
    )
    logit_soft_cap: float = Field(
        default=0.0, ge=0, le=1e6, description="bound c of the logits, c·tanh(logit/c); 0 is none"
    )
    attend_across_documents: bool = Field(
        default=True, description="false: attention stops where a document of a sequence begins"
    )

    @field_validator("n_kv_heads")
    @classmethod
    def _default_kv_heads(cls, n_kv_heads: int, info: ValidationInfo) -> int:
        return n_kv_heads or info.data.get("n_heads", 0)  # absent if it is out of range itself

    @field_validator("d_ff")
    @classmethod
    def _default_width(cls, d_ff: int, info: ValidationInfo) -> int:
        d_model, activation = info.data.get("d_model"), info.data.get("activation")
        return default_d_ff(d_model, activation) if not d_ff and d_model and activation else d_ff

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        for is_wrong, message in self._rules():
            if is_wrong:
                raise ValueError(message)
        return self

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """Whether a rule is broken, and what to say then."""
        yield (
            self.end_of_text >= self.vocab_size,
            f"end_of_text must be below vocab_size, got {self.end_of_text} and {self.vocab_size}",
        )
        yield (
            self.d_model % self.n_heads != 0,
            f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}",
        )
        yield (
            self.n_heads % self.n_kv_heads != 0,
            f"n_heads must be a multiple of n_kv_heads (each key head serves equally many query "
            f"heads), got {self.n_heads} and {self.n_kv_heads}",
        )
        quotient = f"{self.d_model} / {self.n_heads} = {self.d_head}"
        yield (
            self.position == "rope" and self.d_head % 2 != 0,
            f"d_model / n_heads must be even with position rope (rotary embeddings turn pairs), "
            f"got {quotient}",
        )
        yield (
            self.qk_norm and self.d_head == 1,
            f"qk_norm needs heads wider than 1 (the norm of one number keeps only its sign), got "
            f"d_model / n_heads = {quotient}",
        )
        # A slot's bits must not depend on its neighbours. Matrix products sum in another order
        # where a row does not begin at a multiple of 16 bytes; and activations must fill whole
        # vector registers, as the scalar tail of a vectorised exp() rounds differently.
        yield self.d_model % 4 != 0, f"d_model must be a multiple of 4, got {self.d_model}"
        yield (
            self.n_kv_heads * self.d_head % 4 != 0,
            f"n_kv_heads · d_model / n_heads must be a multiple of 4, got {self.n_kv_heads} · "
            f"{self.d_head}",
        )
        yield self.d_ff % 32 != 0, f"d_ff must be a multiple of 32, got {self.d_ff}"

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def num_parameters(self) -> int:
        """Parameters of one model, embedding and head included."""
        return sum(math.prod(shape) for shape in parameter_shapes(self).values())

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of one training token in matrix products, both passes.

        Source: Chowdhery et al. 2022, appendix B (arXiv:2204.02311): 6 per parameter of a
        matrix product, and 12·n_layers·d_model·context_length for attention.
        """
        shapes = parameter_shapes(self)
        products = sum(math.prod(shapes[name]) for name in shapes if is_decayed(name))
        if self.tied_embeddings:
            products += self.vocab_size * self.d_model
        return 6 * products + 12 * self.n_layers * self.d_model * self.context_length


def parameter_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name → shape of every parameter of one model, without the leading K.

    The matrices come first, then the embeddings, then gains and biases: weight decay touches a
    prefix.
    """
    kv = a.d_head * a.n_kv_heads
    matrices = {
        "attn.q_proj": (a.d_model, a.d_model),
        "attn.k_proj": (kv, a.d_model),
        "attn.v_proj": (kv, a.d_model),
        "attn.output_proj": (a.d_model, a.d_model),
        "ffn.w1": (a.d_ff, a.d_model),
        "ffn.w2": (a.d_model, a.d_ff),
    }
    if a.activation in _GATED:
        matrices["ffn.w3"] = (a.d_ff, a.d_model)
    gains = {f"{norm}.weight": a.d_model for norm in ("ln1", "ln2")}
    if a.norm == "layernorm":
        gains |= {f"{norm}.bias": a.d_model for norm in ("ln1", "ln2")}
    if a.qk_norm:
        gains |= {f"attn.{name}_norm.weight": a.d_head for name in ("q", "k")}

    blocks = [f"layers.{i}." for i in range(a.n_layers)]
    shapes: dict[str, tuple[int, ...]] = {
        f"{block}{name}.weight": shape for block in blocks for name, shape in matrices.items()
    }
    if not a.tied_embeddings:
        shapes["lm_head.weight"] = (a.vocab_size, a.d_model)
    shapes["token_embeddings.weight"] = (a.vocab_size, a.d_model)
    if a.position == "learned":
        shapes["position_embeddings.weight"] = (a.context_length, a.d_model)
    shapes |= {f"{block}{name}": (width,) for block in blocks for name, width in gains.items()}
    if a.norm_placement == "pre":  # post-norm ends with the norm of its last block
        shapes["ln_final.weight"] = (a.d_model,)
        if a.norm == "layernorm":
            shapes["ln_final.bias"] = (a.d_model,)
    return shapes


def is_decayed(name: str) -> bool:
    """Whether λ touches a parameter: the matrices, not embeddings, gains and biases."""
    layer = name.rsplit(".", 2)[-2]
    return layer.endswith("_proj") or layer in {"w1", "w2", "w3", "lm_head"}
