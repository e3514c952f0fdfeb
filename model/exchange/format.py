"""Types of the export: a trained model, and a format of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:  # obstacles of a format are reported without loading torch
    from torch import Tensor


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with all that an export contains.

    Attributes:
        spec: specification of its trial.
        weights: by the names of `parameter_shapes`, without K: float32 on the CPU.
        tokenizer: tokenizer of its ids.
        name: short name, for instance `lm-3, trial 7`.
        about: first part of the README, in Markdown: description and metrics.
        details: last part of the README, after its usage.
        adapters: LoRA's matrices by the names of `adapter_shapes`, which `weights` has in it; None
            without LoRA.
    """

    spec: TrialSpec
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    name: str
    about: str
    details: str
    adapters: Mapping[str, Tensor] | None = None

    @property
    def architecture(self) -> Architecture:
        """Architecture of the model."""
        return self.spec.architecture


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        what: description of the result, with an article: "a model of llama.cpp".
        obstacles: returns what the format cannot express of an architecture, each as
            `entry: value`.
        patterns: names of the tokenizer patterns that the format can express.
        needs: optional package that writes the format; None if there is none.
        write: writes the files of a model into an empty folder.
        usage: returns instructions for the files, in Markdown.
        front: front matter of the README, which websites read.
    """

    what: str
    obstacles: Callable[[Architecture], list[str]]
    patterns: tuple[str, ...]
    needs: str | None
    write: Callable[[TrainedModel, Path], None]
    usage: Callable[[TrainedModel], str]
    front: str = ""
