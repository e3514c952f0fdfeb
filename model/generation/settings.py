"""Settings of generation; without torch, for callers that only pass them on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GenerationSettings(BaseModel):
    """Settings of generation.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token.
        top_k: draw from this number of most probable tokens; 0 means all tokens.
        top_p: draw from the fewest tokens whose probabilities sum up to at least this value.
        repetition_penalty: divides the positive logits of tokens that the text already contains,
            and multiplies their negative logits.
        max_tokens: limit of generated tokens.
        seed: seed of the draws.

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
