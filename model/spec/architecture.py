"""Architecture of a model: trials with equal architectures can share a stack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from model.spec.choices import (
    GATED,
    QKV,
    RELATIVE_BUCKETS,
    Activation,
    Position,
    Tower,
    default_d_ff,
)
from model.spec.lora import LARGEST_RANK, canonical_targets, matrices_of
from model.spec.parameter_names import LORA_A, LORA_B, is_decayed, reads_source
from model.spec.target import SIZES_OF_TARGET, Target


def _late(default: Any, description: str, **limits: Any) -> Any:
    """Return a field that a model's JSON leaves out at its default.

    The hash of a specification that is older than the field has no entry for it.
    """
    return Field(
        default=default, exclude_if=lambda value: value == default, description=description,
        **limits,
    )  # fmt: skip


class Architecture(BaseModel):
    """Sizes and choices of one Transformer, a language model or an encoder–decoder.

    Raises:
        ValidationError: if a size is out of range or the choices do not fit each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocab_size: int = Field(ge=2, description="ids of the tokenizer")
    end_of_text: int = Field(default=0, ge=0, description="id of the token that ends a document")
    context_length: int = Field(default=64, ge=1, le=1_048_576, description="tokens per sequence")
    d_model: int = Field(
        default=64, ge=4, le=65_536, description="width of the residual stream, a multiple of 4"
    )
    n_layers: int = Field(default=2, ge=1, le=1_000, description="Transformer blocks")
    n_encoder_layers: int = Field(
        default=0, ge=0, le=1_000,
        description="blocks of an encoder, which reads the source of a pair; 0 is a language model",
    )  # fmt: skip
    source_length: int = Field(
        default=0, ge=0, le=1_048_576, validate_default=True,
        description="tokens of a source, with an encoder; 0 means context_length",
    )  # fmt: skip
    n_heads: int = Field(default=4, ge=1, le=1_024, description="attention heads")
    n_kv_heads: int = Field(
        default=0, ge=0, le=1_024, validate_default=True,
        description="heads of keys and values, each shared by n_heads / n_kv_heads query heads; "
        "0 means n_heads",
    )  # fmt: skip
    activation: Activation = Field(
        default="swiglu", description="activation of the feed-forward layer"
    )
    d_ff: int = Field(
        default=0, ge=0, le=1_048_576, validate_default=True,
        description="inner width of the feed-forward layer, a multiple of 32; 0 means 8/3·d_model "
        "to the nearest multiple of 64, and 3/2 of that if the activation is not gated",
    )  # fmt: skip
    position: Position = Field(default="rope", description="position encoding")
    rope_theta: float = Field(default=10_000.0, gt=1, description="base of the rotary angles")
    norm: Literal["rmsnorm", "layernorm"] = Field(
        default="rmsnorm", description="normalization of activations"
    )
    norm_placement: Literal["pre", "post"] = Field(
        default="pre",
        description="pre: norm of each branch's input; post: norm of the sum after it",
    )
    qk_norm: bool = Field(default=False, description="rmsnorm of each head's queries and keys")
    tied_embeddings: bool = Field(
        default=False, description="the output head uses the matrix of the token embeddings"
    )
    logit_soft_cap: float = Field(
        default=0.0, ge=0, le=1e6, description="bound c of the logits, c·tanh(logit/c); 0 is none"
    )
    attend_across_documents: bool = Field(
        default=True, description="false: a token attends only to tokens of its own document"
    )
    target: Target | None = _late(None, "the large model that this one is a proxy of")
    head_width: int = _late(
        0, "width of an attention head; 0 means d_model / n_heads", ge=0, le=65_536
    )
    biases: Literal["none", "qkv", "all"] = _late(
        "none", "linear maps with a bias: of queries, keys and values, or all inside the blocks"
    )
    norm_eps: float = _late(1e-5, "added to the variance or mean square by norms", gt=0, le=1)
    scaled_head: bool = _late(
        True, "a tied head divides its input by √d_model; false: embeddings begin smaller instead"
    )
    rope_scaling: Literal["none", "linear", "llama3"] = _late(
        "none", "slower rotary angles for longer contexts: of all pairs, or of the slow ones"
    )
    rope_factor: float = _late(1.0, "divisor of the rotary angles that are scaled", ge=1, le=1e6)
    rope_original_length: int = _late(
        8_192, "context before llama3's scaling, in tokens", ge=1, le=1_048_576
    )
    rope_low_frequency: float = _late(
        1.0, "turns in that context up to which llama3 divides angles completely", gt=0, le=1e6
    )
    rope_high_frequency: float = _late(
        4.0, "turns in that context from which llama3 keeps angles", gt=0, le=1e6
    )
    lora_rank: int = _late(
        0, "rank of LoRA's matrices, which alone are trained; 0 trains all weights",
        ge=0, le=LARGEST_RANK,
    )  # fmt: skip
    lora_targets: Annotated[str, AfterValidator(canonical_targets)] = _late(
        "all", "matrices that LoRA adapts: all, attention, mlp, or names such as q_proj,v_proj"
    )

    @field_validator("head_width")
    @classmethod
    def _plain_head_width(cls, head_width: int, info: ValidationInfo) -> int:
        """Write the default width as 0: one model has one hash."""
        d_model, heads = info.data.get("d_model", 0), info.data.get("n_heads", 0)
        return 0 if head_width * heads == d_model else head_width

    @field_validator("n_kv_heads")
    @classmethod
    def _default_kv_heads(cls, n_kv_heads: int, info: ValidationInfo) -> int:
        return n_kv_heads or info.data.get("n_heads", 0)  # n_heads is absent if it is invalid

    @field_validator("source_length")
    @classmethod
    def _default_source_length(cls, source_length: int, info: ValidationInfo) -> int:
        if info.data.get("n_encoder_layers"):
            return source_length or info.data.get("context_length", 0)
        return source_length

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
        """Yield for each rule whether it is broken, and the error message."""
        yield (
            self.end_of_text >= self.vocab_size,
            f"end_of_text must be below vocab_size, got {self.end_of_text} and {self.vocab_size}",
        )
        yield (
            not self.head_width and self.d_model % self.n_heads != 0,
            f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}",
        )
        yield (
            self.n_heads % self.n_kv_heads != 0,
            f"n_heads must be a multiple of n_kv_heads (each key head serves equally many query "
            f"heads), got {self.n_heads} and {self.n_kv_heads}",
        )
        yield (
            self.source_length > 0 and not self.n_encoder_layers,
            "source_length has no effect without an encoder; set n_encoder_layers or leave it out",
        )
        yield (
            self.n_encoder_layers > 0 and self.source_length < 2,
            f"source_length must be at least 2 (its last place is the end of the text), got "
            f"{self.source_length}",
        )
        yield (
            self.n_encoder_layers > 0 and self.position == "none",
            "position none leaves an encoder, which sees all tokens alike, without their order; "
            "choose another",
        )
        yield (
            self.n_encoder_layers > 0 and not self.attend_across_documents,
            "attend_across_documents: false has no effect on an encoder–decoder, whose sequences "
            "are never joined; leave it out",
        )
        width = "head_width" if self.head_width else "d_model / n_heads"
        value = self.d_head if self.head_width else f"{self.d_model} / {self.n_heads}"
        quotient = value if self.head_width else f"{value} = {self.d_head}"
        yield (
            self.position == "rope" and self.d_head % 2 != 0,
            f"{width} must be even with position rope (rotary embeddings turn pairs), "
            f"got {quotient}",
        )
        yield (
            self.qk_norm and self.d_head == 1,
            f"qk_norm needs heads wider than 1 (the norm of one number keeps only its sign), got "
            f"{width} = {quotient}",
        )
        yield (
            self.rope_low_frequency >= self.rope_high_frequency,
            f"rope_low_frequency must be below rope_high_frequency, got "
            f"{self.rope_low_frequency:g} and {self.rope_high_frequency:g}",
        )
        # The bits of a slot must not depend on its neighbours. Matrix products sum in another order
        # if a row does not begin at a multiple of 16 bytes; and activations must fill complete
        # vector registers, because the scalar tail of a vectorised exp() rounds differently.
        yield self.d_model % 4 != 0, f"d_model must be a multiple of 4, got {self.d_model}"
        yield (
            self.n_kv_heads * self.d_head % 4 != 0,
            f"n_kv_heads · {width} must be a multiple of 4, got {self.n_kv_heads} · {self.d_head}",
        )
        yield self.d_ff % 32 != 0, f"d_ff must be a multiple of 32, got {self.d_ff}"
        yield from self._rules_of_lora()
        if self.target is not None:
            yield from self._rules_of_target(self.target)

    def _rules_of_lora(self) -> Iterator[tuple[bool, str]]:
        yield (
            not self.lora_rank and self.lora_targets != "all",
            "lora_targets has no effect without lora_rank; give a rank or leave it out",
        )
        yield (
            self.lora_rank > 0 and self.n_encoder_layers > 0,
            "LoRA adapts language models, and this one has an encoder; leave lora out",
        )
        yield (
            self.lora_rank > 0 and self.target is not None,
            "LoRA has no rules by which a proxy stands for its target; leave out lora or the proxy",
        )
        yield (
            "gate_proj" in self.lora_targets and self.activation not in GATED,
            f"lora_targets names gate_proj, and {self.activation} has no gate",
        )

    def _rules_of_target(self, target: Target) -> Iterator[tuple[bool, str]]:
        yield (
            (self.n_encoder_layers > 0) != (target.n_encoder_layers > 0),
            "a model and its target must both have an encoder, or none",
        )
        depths = [(a.n_layers, a.n_encoder_layers) for a in (self, target)]
        yield (
            self.norm_placement == "post" and depths[0] != depths[1],
            "norm_placement: post does not transfer over the depth, because each norm undoes the "
            "factor of the branch before it; take norm_placement: pre, or the target's depth",
        )
        try:
            self.target_architecture  # noqa: B018 - checks the target's rules
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Value error, ")
            yield True, f"the target is no possible model: {rule}"

    @property
    def target_architecture(self) -> Architecture:
        """Architecture of the target; of the model itself if it has none."""
        if self.target is None:
            return self
        sizes = self.target.model_dump(include=set(SIZES_OF_TARGET))
        entries = self.model_dump(exclude={"target"})
        return Architecture.model_validate({**entries, **sizes})

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.d_model // self.n_heads

    @property
    def num_parameters(self) -> int:
        """Number of parameters of one model, embedding and head included."""
        return sum(math.prod(shape) for shape in parameter_shapes(self).values())

    @property
    def num_trained(self) -> int:
        """Number of parameters that training changes: all, or LoRA's."""
        return sum(math.prod(shape) for shape in trained_shapes(self).values())

    @property
    def decoder(self) -> Tower:
        """Blocks that predict the next token; all blocks of a language model."""
        has_encoder = self.n_encoder_layers > 0
        return Tower(
            "", self.n_layers, self.context_length, is_causal=True, reads_memory=has_encoder
        )

    @property
    def encoder(self) -> Tower:
        """Blocks that read the source; none in a language model."""
        return Tower("encoder.", self.n_encoder_layers, self.source_length, is_causal=False)

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations of one training token in matrix products, both passes.

        With an encoder: of a token of the target, with its share of the source.

        Source: Chowdhery et al. 2022, appendix B (arXiv:2204.02311): 6 per parameter of a
        matrix product, and 12·n_layers·d_model·context_length for attention. A frozen matrix has no
        gradient of its own, and 4.
        """
        shapes = parameter_shapes(self)
        sizes = {name: math.prod(shapes[name]) for name in shapes if is_decayed(name)}
        if self.tied_embeddings:
            sizes["tied"] = self.vocab_size * self.d_model
        share = self.source_length / self.context_length
        source_sizes = sum(size for name, size in sizes.items() if reads_source(name))
        products = sum(sizes.values()) - source_sizes + share * source_sizes
        decoder_tokens = self.n_layers * (self.context_length + self.source_length)
        attended = decoder_tokens + share * self.n_encoder_layers * self.source_length
        own, each = (6 * self.num_trained, 4) if self.lora_rank else (0, 6)
        return each * products + own + 12 * self.n_heads * self.d_head * attended


def parameter_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name → shape of every parameter of one model, without the leading K.

    The matrices come first, then the embeddings, then gains and biases, so that each group with
    its own weight decay is contiguous.
    """
    towers = [a.decoder, a.encoder] if a.n_encoder_layers else [a.decoder]
    shapes: dict[str, tuple[int, ...]] = {}
    for tower in towers:
        shapes |= _in_blocks(tower, _block_matrices(a, tower))
    if not a.tied_embeddings:
        shapes["lm_head.weight"] = (a.vocab_size, a.d_model)
    shapes["token_embeddings.weight"] = (a.vocab_size, a.d_model)
    for tower in towers:
        if a.position == "learned":
            shapes[f"{tower.prefix}position_embeddings.weight"] = (tower.max_length, a.d_model)
        if a.position == "relative":
            shapes[f"{tower.prefix}relative_bias.weight"] = (RELATIVE_BUCKETS, a.n_heads)
    for tower in towers:
        shapes |= _in_blocks(tower, _block_gains(a, tower))
        if a.norm_placement == "pre":  # post-norm ends with the norm of its last block
            shapes |= {f"{tower.prefix}{name}": (a.d_model,) for name in _norm(a, "ln_final")}
    return shapes


def adapter_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name → shape of LoRA's parameters, without the leading K; empty without LoRA.

    A matrix W (o, i) gets A (r, i) and B (o, r), and computes W·x + s·B·A·x. All A come first: so
    do those that have a rate of their own, all B, lie together.
    """
    if not a.lora_rank:
        return {}
    targets = matrices_of(a.lora_targets, is_gated=a.activation in GATED)
    adapted = {
        name.removesuffix(".weight"): shape
        for name, shape in parameter_shapes(a).items()
        if name.endswith(".weight") and ".".join(name.rsplit(".", 3)[-3:-1]) in targets
    }
    shapes: dict[str, tuple[int, ...]]
    shapes = {f"{n}.{LORA_A}.weight": (a.lora_rank, columns) for n, (_, columns) in adapted.items()}
    return shapes | {
        f"{n}.{LORA_B}.weight": (rows, a.lora_rank) for n, (rows, _) in adapted.items()
    }


def trained_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name → shape of the parameters that training changes: LoRA's, or all."""
    return adapter_shapes(a) if a.lora_rank else parameter_shapes(a)


def _in_blocks(
    tower: Tower, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the parameters of one block for every block of a tower."""
    for i in range(tower.n_layers):
        for name, shape in shapes.items():
            yield f"{tower.prefix}layers.{i}.{name}", shape


def _block_matrices(a: Architecture, tower: Tower) -> dict[str, tuple[int, ...]]:
    q, kv = a.d_head * a.n_heads, a.d_head * a.n_kv_heads
    attention = {
        "q_proj": (q, a.d_model),
        "k_proj": (kv, a.d_model),
        "v_proj": (kv, a.d_model),
        "output_proj": (a.d_model, q),
    }
    matrices = {f"attn.{name}": shape for name, shape in attention.items()}
    if tower.reads_memory:
        matrices |= {f"cross.{name}": shape for name, shape in attention.items()}
    matrices |= {"ffn.w1": (a.d_ff, a.d_model), "ffn.w2": (a.d_model, a.d_ff)}
    if a.activation in GATED:
        matrices["ffn.w3"] = (a.d_ff, a.d_model)
    return {f"{name}.weight": shape for name, shape in matrices.items()}


def _block_gains(a: Architecture, tower: Tower) -> dict[str, tuple[int, ...]]:
    norms = ("ln1", "ln_cross", "ln2") if tower.reads_memory else ("ln1", "ln2")
    gains = {name: a.d_model for norm in norms for name in _norm(a, norm)}
    if a.qk_norm:
        heads = ("attn", "cross") if tower.reads_memory else ("attn",)
        gains |= {f"{h}.{name}_norm.weight": a.d_head for h in heads for name in ("q", "k")}
    for name, (width, _) in _block_matrices(a, tower).items():
        if a.biases == "all" or (a.biases == "qkv" and name.rsplit(".", 2)[-2] in QKV):
            gains[f"{name.removesuffix('.weight')}.bias"] = width
    return {name: (width,) for name, width in gains.items()}


def _norm(a: Architecture, name: str) -> tuple[str, ...]:
    """Return the names of the parameters of a norm."""
    gain, bias = f"{name}.weight", f"{name}.bias"
    return (gain, bias) if a.norm == "layernorm" else (gain,)
