"""What a user says about the data, and the one error that bad data causes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

END_OF_TEXT = "<|endoftext|>"

# Which kinds of source an option is for; with the others it would have no effect.
_OPTION_KINDS = {
    "separator": ("files",),
    "errors": ("files",),
    "field": ("files",),
    "column": ("files", "hub"),
    "hub_config": ("hub",),
    "split": ("hub",),
    "revision": ("hub",),
}


class CorpusError(ValueError):
    """The data cannot be used; one sentence says what, where and what to do."""


class DataConfig(BaseModel):
    """Where the text comes from; by default the standard library's source.

    Attributes:
        source: a text that every machine has.
        files: files, folders and patterns, instead of a source.
        hub: a Hugging Face data set, `owner/name` or a folder that holds one, instead of both;
            TinyStories and OpenWebText are short names.
        hub_config: which configuration of the data set, where it has several.
        split: which split of the data set.
        revision: commit of the data set, so that it stays the same and needs no look-up.
        field: key of the text in .jsonl files.
        column: column of the text in .csv, .tsv and .parquet files and data sets.
        separator: what stands between documents inside a text file.
        errors: what bytes that are not UTF-8 do: stop the reading, or become U+FFFD.
        validation_fraction: share of the documents that is held out, in (0, 1).

    Raises:
        ValidationError: if not exactly one of `source`, `files` and `hub` is given, or an option
            that has no effect on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["python-stdlib", "python-docstrings"] | None = None
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    hub: str | None = Field(default=None, min_length=1)
    hub_config: str | None = Field(default=None, min_length=1)
    split: str = Field(default="train", min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    field: str = Field(default="text", min_length=1)
    column: str = Field(default="text", min_length=1)
    separator: str = Field(default=END_OF_TEXT, min_length=1)
    errors: Literal["strict", "replace"] = "strict"
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, given: Any) -> Any:
        if isinstance(given, dict) and not {"source", "files", "hub"} & given.keys():
            return {**given, "source": "python-stdlib"}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.source, self.files, self.hub].count(None) != 2:
            raise ValueError("give exactly one of source, files and hub")
        return self

    @model_validator(mode="after")
    def _no_idle_option(self) -> Self:
        kind = "source" if self.source else self.kind
        for option, kinds in _OPTION_KINDS.items():
            # A record of the whole names every option, so only another value is a wish.
            is_default = getattr(self, option) == type(self).model_fields[option].default
            if kind not in kinds and not is_default:
                raise ValueError(
                    f"{option} has no effect with {kind}; it is for {' and '.join(kinds)}"
                )
        return self

    @property
    def kind(self) -> str:
        """Name in `SOURCES`."""
        return self.source or ("files" if self.files else "hub")


def no_column(
    where: str, column: str, columns: Collection[str], option: str = "column"
) -> CorpusError:
    """What to say of a table that lacks the column that an option of the data names."""
    return CorpusError(
        f"{where} has no column {column!r}, only {listed(columns)}; set data.{option}"
    )


def listed(names: Collection[str]) -> str:
    """The first few names, quoted."""
    most = 8
    first = ", ".join(map(repr, list(names)[:most])) or "none"
    return first + (f" and {len(names) - most} more" if len(names) > most else "")
