"""What is exported, and what a format is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:  # what a format cannot express is said without torch
    from torch import Tensor


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, as it leaves.

    Attributes:
        spec: of its trial.
        weights: by the names of `parameter_shapes`, without K: float32 on the CPU.
        tokenizer: that its ids are of.
        name: in a word or two, for instance `lm-3, trial 7`.
        about: the beginning of its README, in Markdown: what it is, and its numbers.
        details: what its README says behind how to use it.
    """

    spec: TrialSpec
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    name: str
    about: str
    details: str

    @property
    def architecture(self) -> Architecture:
        """Of the model."""
        return self.spec.architecture


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        what: it writes.
        obstacles: what it cannot express of an architecture, each as `entry: value`.
        patterns: how a tokenizer may cut text.
        needs: a package that writes it, and is not always there; None for none.
        write: puts the files of a model into an empty folder.
        usage: how to use them, in Markdown.
        front: the head of the README, which sites read.
    """

    what: str
    obstacles: Callable[[Architecture], list[str]]
    patterns: tuple[str, ...]
    needs: str | None
    write: Callable[[TrainedModel, Path], None]
    usage: Callable[[TrainedModel], str]
    front: str = ""
