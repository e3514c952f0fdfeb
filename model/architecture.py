"""What changes tensor shapes: trials that agree here can share a stack."""

from __future__ import annotations

from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)


def default_d_ff(d_model: int) -> int:
    """Inner width of SwiGLU: 8/3·d_model, rounded to the nearest multiple of 64.

    Source: Shazeer 2020, section 2 (arXiv:2002.05202): ⅔ of the usual 4·d_model, so that three
    matrices hold as many parameters as two.
    """
    return max(64, 64 * round(8 * d_model / 3 / 64))


class Architecture(BaseModel):
    """The shape of one Transformer language model.

    Raises:
        ValidationError: if a size is out of range or the sizes do not fit each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(ge=257, description="ids of the tokenizer")
    context_length: int = Field(default=64, ge=1, le=1_048_576, description="tokens per sequence")
    d_model: int = Field(default=64, ge=2, le=65_536, description="width of the residual stream")
    n_layers: int = Field(default=2, ge=1, le=1_000, description="Transformer blocks")
    n_heads: int = Field(default=4, ge=1, le=1_024, description="attention heads")
    d_ff: int = Field(
        default=0, ge=0, le=1_048_576, validate_default=True,
        description="inner width of SwiGLU; 0 means 8/3·d_model to the nearest multiple of 64",
    )  # fmt: skip
    rope_theta: float = Field(default=10_000.0, gt=1, description="base of the rotary angles")

    @field_validator("d_ff")
    @classmethod
    def _default_width(cls, d_ff: int, info: ValidationInfo) -> int:
        d_model = info.data.get("d_model")  # absent if it is out of range itself
        return default_d_ff(d_model) if d_ff == 0 and d_model else d_ff

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}"
            )
        if self.d_head % 2:
            raise ValueError(
                f"d_model / n_heads must be even (rotary embeddings turn pairs), got "
                f"{self.d_model} / {self.n_heads} = {self.d_head}"
            )
        # A slot's activations must fill whole vector registers: the scalar tail of a vectorised
        # exp() rounds differently, and where the tail lies would depend on the neighbours.
        if self.d_ff % 32:
            raise ValueError(f"d_ff must be a multiple of 32, got {self.d_ff}")
        return self

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def num_parameters(self) -> int:
        """Parameters of one model, embedding and head included."""
        block = 4 * self.d_model**2 + 3 * self.d_model * self.d_ff + 2 * self.d_model
        return 2 * self.vocab_size * self.d_model + self.n_layers * block + self.d_model

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of one training token, forward and backward.

        Source: Chowdhery et al. 2022, appendix B (arXiv:2204.02311): 6 per parameter of a
        matrix product, and 12·n_layers·d_model·context_length for attention.
        """
        products = self.num_parameters - self.vocab_size * self.d_model
        return 6 * products + 12 * self.n_layers * self.d_model * self.context_length
