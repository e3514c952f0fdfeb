"""How examples of a fine-tuning become text: the chat template of a model, and its marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ChatFormat(BaseModel):
    """Chat template of a model and the special tokens that it may name.

    Attributes:
        template: template of jinja2, as transformers renders it; None writes prompts as plain text.
        tokens: names and texts of special tokens, such as `bos_token`, by name.
        begin: text before prompts that are no chat; empty if the model reads none.
        end: text after answers that are no chat.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str | None = Field(default=None, min_length=1)
    tokens: tuple[tuple[str, str], ...] = ()
    begin: str = ""
    end: str = Field(min_length=1)

    @field_validator("tokens", mode="before")
    @classmethod
    def _sorted(cls, tokens: Any) -> Any:
        return tuple(sorted(tokens.items())) if isinstance(tokens, Mapping) else tokens
