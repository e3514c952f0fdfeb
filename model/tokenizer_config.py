"""What a user says about the tokenizer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TokenizerConfig(BaseModel):
    """The byte-level BPE that is trained on the training documents.

    Attributes:
        vocab_size: ids that it may make, `<|endoftext|>` and the 256 bytes included.
        pattern: how text is cut into pre-tokens: like GPT-2, like GPT-4 (numbers by three digits,
            line breaks apart), or at white space only.

    Raises:
        ValidationError: if a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(default=2048, ge=257, le=1_000_000)
    pattern: Literal["gpt2", "gpt4", "whitespace"] = "gpt2"
