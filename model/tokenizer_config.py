"""What a user says about the tokenizer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TokenizerConfig(BaseModel):
    """The byte-level BPE: one that is given, or else trained on the training documents.

    Attributes:
        file: a tokenizer.json, a tiktoken rank file or a folder of GPT-2's files, which must hold
            `<|endoftext|>`; the other attributes follow from it and are not read.
        vocab_size: ids that it may make, `<|endoftext|>` and the 256 bytes included.
        pattern: how text is cut into pre-tokens: like GPT-2, like GPT-4 (numbers by three digits,
            line breaks apart), or at white space only.

    Raises:
        ValidationError: if a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str | None = Field(default=None, min_length=1)
    vocab_size: int = Field(default=2048, ge=257, le=1_000_000)
    pattern: Literal["gpt2", "gpt4", "whitespace"] = "gpt2"
