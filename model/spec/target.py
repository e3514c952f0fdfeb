"""The large model that a small one, its proxy, is trained for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BatchRule = Literal["off", "sqrt"]
TokensRule = Literal["off", "bjorck", "timescale"]


class Target(BaseModel):
    """Sizes of the model that a proxy is trained for, and the rules between both.

    The hyperparameters of a proxy's trial have the values of the target; the trainer multiplies
    them, for each tensor, by factors that follow from both shapes (`multipliers`). A model whose
    target has its own shape has no factors, so that the target itself needs none.

    Attributes:
        d_model: width of the residual stream.
        n_layers: blocks of the decoder, or of a language model.
        n_encoder_layers: blocks of the encoder.
        n_heads: attention heads.
        n_kv_heads: heads of keys and values.
        d_ff: inner width of the feed-forward layer.
        decay_exponent: e, the product α·λ of a hidden matrix is multiplied by m^(e−1), where m is
            the ratio of the fan-ins; 1 keeps α·λ.
        batch: B of the proxy, as a share of the target's.
        batch_rule: how α, β and ε follow `batch`; see `rules.trained`.
        tokens: training tokens of the proxy, as a share of the target's.
        tokens_rule: how α or λ follows `tokens`; see `rules.trained`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    d_model: int = Field(ge=4)
    n_layers: int = Field(ge=1)
    n_encoder_layers: int = Field(default=0, ge=0)
    n_heads: int = Field(ge=1)
    n_kv_heads: int = Field(ge=1)
    d_ff: int = Field(ge=32)
    decay_exponent: float = Field(default=1.0, ge=-4, le=4)
    batch: float = Field(default=1.0, gt=0, le=1)
    batch_rule: BatchRule = "off"
    tokens: float = Field(default=1.0, gt=0, le=1)
    tokens_rule: TokensRule = "off"


# entries of an architecture that a target may have of its own
SIZES_OF_TARGET = ("d_model", "n_layers", "n_encoder_layers", "n_heads", "n_kv_heads", "d_ff")
