"""Configuration of the data and of the tokenizer, as a user writes it in YAML."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from model.spec.chat import ChatFormat

SplitName = Literal["train", "validation"]
SplitRule = Literal["document", "position"]
SPLITS: tuple[SplitName, SplitName] = ("train", "validation")

END_OF_TEXT = "<|endoftext|>"
# By default: a row of 64 MB bounds the memory of its reader.
LONGEST_ROW = 2**26

_PAIRS = "files with pairs: true"
_EXAMPLES = "files with examples: true"
# option → kinds of source on which it has an effect; with other kinds it is refused
_OPTION_KINDS = {
    "source_field": (_PAIRS,),
    "target_field": (_PAIRS,),
    "loss_on": (_EXAMPLES,),
    "packing": (_EXAMPLES,),
    "chat": (_EXAMPLES,),
    "separator": ("files",),
    "errors": ("files", _PAIRS, _EXAMPLES),
    "field": ("files",),
    "column": ("files", "hub"),
    "hub_config": ("hub",),
    "split": ("hub",),
    "revision": ("hub",),
    "max_row_characters": ("files", _PAIRS, _EXAMPLES, "hub"),
}


class DataConfig(BaseModel):
    """Source of the text; by default the source code of the standard library.

    Attributes:
        source: a text that every machine has.
        files: files, folders and patterns, instead of `source`.
        hub: a Hugging Face data set, `owner/name` or a folder that holds one, instead of `source`
            and `files`; TinyStories and OpenWebText are short names.
        pairs: True if each document is a source and a target, for an encoder–decoder. In files,
            source and target are two fields of a row, so that only tables have pairs.
        examples: True if each row of .jsonl files is an example of a fine-tuning: `messages`, a
            `prompt` and a `completion`, or an `instruction` (with an `input`) and an `output`.
        loss_on: tokens of examples that count in losses: of the `answers`, or `all`.
        packing: True to put several examples into one sequence, which do not see each other.
        chat: how examples become text; None takes that of the pretrained model.
        source_field: key of the source in .jsonl files of pairs, or its column in .csv, .tsv and
            .parquet files.
        target_field: key or column of the target.
        hub_config: configuration of the data set, if it has several.
        split: split of the data set.
        revision: commit of the data set, which pins its contents and saves a request to the hub.
        field: key of the text in .jsonl files.
        column: column of the text in .csv, .tsv and .parquet files and data sets.
        separator: text between documents inside a text file.
        errors: treatment of bytes that are not UTF-8: `strict` raises, `replace` reads U+FFFD.
        validation_fraction: share of the documents, or of the text, that is held out, in (0, 1).
        split_by: `document` holds out documents, by a hash of their names; `position` holds out
            the end of the text. None splits files with a single document by position, and
            everything else by document.
        multiple_choice: .jsonl file of questions with several answers, which models are also
            evaluated on; None for none.
        max_row_characters: longest row of a table, as it is written in the file, and longest white
            space before a text; more is refused, which bounds the memory. None is `LONGEST_ROW`. It
            changes no document, and is no part of a specification's hash.

    Raises:
        ValidationError: if not exactly one of `source`, `files` and `hub` is given, an option has
            no effect on the source, `pairs` or `examples` is set for a source that has none, or
            they shall be split by position.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["python-stdlib", "python-docstrings"] | None = None
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    hub: str | None = Field(default=None, min_length=1)
    pairs: bool = False  # before the fields that are validated against it
    # left out of JSON at their defaults, like all that older hashes have no entry for
    examples: bool = Field(default=False, exclude_if=lambda value: not value)
    loss_on: Literal["answers", "all"] = Field(
        default="answers", exclude_if=lambda value: value == "answers"
    )
    packing: bool = Field(default=True, exclude_if=lambda value: value)
    chat: ChatFormat | None = Field(default=None, exclude_if=lambda value: value is None)
    source_field: str = Field(default="source", min_length=1)
    target_field: str = Field(default="target", min_length=1)
    hub_config: str | None = Field(default=None, min_length=1)
    split: str = Field(default="train", min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    field: str = Field(default="text", min_length=1)
    column: str = Field(default="text", min_length=1)
    separator: str = Field(default=END_OF_TEXT, min_length=1)
    errors: Literal["strict", "replace"] = "strict"
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)
    # left out of JSON while it is None: the hash of a specification has no entry for it
    split_by: SplitRule | None = Field(default=None, exclude_if=lambda rule: rule is None)
    multiple_choice: str | None = Field(
        default=None, min_length=1, exclude_if=lambda file: file is None
    )
    max_row_characters: int | None = Field(default=None, ge=1, le=2**31)

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and not {"source", "files", "hub"} & fields.keys():
            return {**fields, "source": "python-stdlib"}
        return fields

    @field_validator("pairs")
    @classmethod
    def _pairs_exist(cls, pairs: bool, info: ValidationInfo) -> bool:
        source, hub = info.data.get("source"), info.data.get("hub")
        if pairs and (source == "python-stdlib" or hub):
            raise ValueError(
                f"there are no pairs in {'a data set of the hub' if hub else source}; use source: "
                f"python-docstrings, or files: with a source and a target in each row of a .jsonl, "
                f".csv, .tsv or .parquet file"
            )
        return pairs

    @field_validator("examples")
    @classmethod
    def _examples_exist(cls, examples: bool, info: ValidationInfo) -> bool:
        if examples and (not info.data.get("files") or info.data.get("pairs")):
            raise ValueError("examples are rows of .jsonl files; give files:, without pairs: true")
        return examples

    @field_validator("multiple_choice")
    @classmethod
    def _is_read_by_language_models(cls, file: str | None, info: ValidationInfo) -> str | None:
        if file and info.data.get("pairs"):
            raise ValueError("multiple_choice is for language models; leave it out with pairs")
        return file

    @field_validator("split_by")
    @classmethod
    def _pairs_stay_together(
        cls, split_by: SplitRule | None, info: ValidationInfo
    ) -> SplitRule | None:
        for rows in ("pairs", "examples"):
            if split_by == "position" and info.data.get(rows):
                raise ValueError(f"{rows} are split by document only; leave split_by out")
        return split_by

    # A validator of fields and not of the model, so that the error is located at the field. If an
    # earlier field is invalid, only that error is reported.
    @field_validator(*_OPTION_KINDS)
    @classmethod
    def _has_effect(cls, value: Any, info: ValidationInfo) -> Any:
        option = info.field_name or ""
        sources = [kind for kind in ("source", "files", "hub") if info.data.get(kind)]
        # A recorded configuration names every option, so that a default value is no user's choice.
        is_default = value == cls.model_fields[option].default
        if len(sources) != 1 or "pairs" not in info.data or is_default:
            return value
        has_fields = info.data["pairs"] and sources == ["files"]
        kind, kinds = _PAIRS if has_fields else sources[0], _OPTION_KINDS[option]
        if info.data.get("examples"):
            kind = _EXAMPLES
        if kind not in kinds:
            fix = (
                "name source_field and target_field instead"
                if has_fields
                else f"it is for {' and '.join(kinds)}"
            )
            raise ValueError(f"{option} has no effect with {kind}; {fix}")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.source, self.files, self.hub].count(None) != 2:
            raise ValueError("give exactly one of source, files and hub")
        return self

    @model_validator(mode="after")
    def _two_fields(self) -> Self:
        if self.source_field == self.target_field:
            raise ValueError(
                f"source_field and target_field are both {self.source_field!r}; name two fields"
            )
        return self

    @property
    def kind(self) -> str:
        """Name of the kind of source in `SOURCES`."""
        return self.source or ("files" if self.files else "hub")

    @property
    def noun(self) -> str:
        """What a document is called: `pair`, `example` or `document`."""
        return "pair" if self.pairs else "example" if self.examples else "document"

    @property
    def has_rows(self) -> bool:
        """True if documents are pairs or examples, which are counted instead of tokens."""
        return self.pairs or self.examples

    @property
    def learns_answers(self) -> bool:
        """True if the tokens of answers are learned and no others."""
        return self.examples and self.loss_on == "answers"

    @property
    def longest_row(self) -> int:
        """Characters of the longest row that is read."""
        return self.max_row_characters or LONGEST_ROW


class TokenizerConfig(BaseModel):
    """A byte-level BPE: read from a file, or trained on the training documents.

    Attributes:
        file: a tokenizer.json, a tiktoken rank file or a folder of GPT-2's files, which must hold
            `<|endoftext|>`; the other attributes then follow from the file and are not read. A
            tokenizer.json may be of another kind with the extra `tokenizers`.
        vocab_size: number of ids to train, `<|endoftext|>` and the 256 bytes included.
        pattern: rule that cuts text into pre-tokens: like GPT-2, like GPT-4 (numbers by three
            digits, line breaks apart), or at white space only.

    Raises:
        ValidationError: if a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str | None = Field(default=None, min_length=1)
    vocab_size: int = Field(default=2048, ge=257, le=1_000_000)
    pattern: Literal["gpt2", "gpt4", "whitespace"] = "gpt2"
