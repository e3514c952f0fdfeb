"""How text is written; without torch, for those that only pass it on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GenerationSettings(BaseModel):
    """How text is written.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token.
        top_k: how many of the most probable tokens are drawn from; 0 is all.
        top_p: the fewest tokens with at least this probability together are drawn from.
        repetition_penalty: divides positive logits of tokens that were read or written before,
            and multiplies negative ones.
        max_tokens: the most that are written.
        seed: of the draws.

    Raises:
        ValidationError: if a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(default=0.8, ge=0, le=1000)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=1000)
    max_tokens: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
